"""Stores the rows of a batch on disk as soon as they are ready, so that an interrupted batch can go on."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from fastsam3d.basics.files import finite
from fastsam3d.basics.record_log import end_last_line
from fastsam3d.cluster.batch.places import LocalFolder, Place
from fastsam3d.errors import UserError

FOLDER = ".batch"
ROWS = "rows.jsonl"
EVERY, MOST = 5.0, 500
"""Seconds, and rows, after which the rows of a remote output are written: stores of objects cannot append."""

Row = dict[str, Any]


class Ledger:
    """The rows of a batch by name; the last row of a name counts. Memory holds only the place of each row on disk.

    In a local folder every row is one line of `.batch/rows.jsonl`. At an address rows go to a new file of the hidden
    folder every few seconds; if a killed driver had not written a row yet, the workers find the result itself.

    Args:
        output: the folder of the batch.
        scratch: a folder of this machine, for an output at an address.
        resume: false starts from the beginning.

    Raises:
        UserError: the folder cannot be written to.
    """

    def __init__(self, output: Place, scratch: Path, *, resume: bool = True) -> None:
        self._output = output
        self._local = isinstance(output, LocalFolder)
        self.path = (output.path / FOLDER if isinstance(output, LocalFolder) else scratch) / ROWS
        self._places: dict[str, int] = {}
        self._buffer: list[bytes] = []
        self._part, self._flushed = f"{time.time_ns():020d}", time.monotonic()
        self._parts = 0
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if not resume:
                self.path.unlink(missing_ok=True)
            elif not self._local:
                self.path.write_bytes(self._remote_rows())
            if self.path.exists():
                end_last_line(self.path)
            self._file: IO[bytes] = self.path.open("a+b")
        except OSError as error:
            raise UserError(
                f"cannot write to {self.path} ({error.strerror or error}): choose another output."
            ) from None
        self._read()

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def get(self, name: str) -> Row | None:
        """Reads the row of a name; None if there is none."""
        if name not in self._places:
            return None
        self._file.seek(self._places[name])
        row: Row = json.loads(self._file.readline())
        return row

    def append(self, row: Row) -> None:
        """Adds a row. In a local folder it is on disk at once, so a killed process does not lose it.

        Raises:
            UserError: it cannot be written.
        """
        line = json.dumps(finite(row), allow_nan=False).encode() + b"\n"
        try:
            self._places[row["name"]] = self._file.seek(0, os.SEEK_END)
            self._file.write(line)
            self._file.flush()
        except OSError as error:
            raise UserError(
                f"cannot write to {self.path} ({error.strerror or error}): make room on the disk."
            ) from None
        if not self._local:
            self._buffer.append(line)
            if len(self._buffer) >= MOST or time.monotonic() - self._flushed >= EVERY:
                self.flush()

    def flush(self) -> None:
        """Writes the rows of a remote output that were not written yet."""
        if self._buffer:
            self._output.write(f"{FOLDER}/rows-{self._part}-{self._parts:06d}.jsonl", b"".join(self._buffer))
            self._parts, self._buffer, self._flushed = self._parts + 1, [], time.monotonic()

    def close(self) -> None:
        """Writes what is left and closes the file. A file without rows is removed."""
        try:
            self.flush()
        finally:
            with suppress(OSError):  # of a row that `append` could not write: it has told so
                self._file.close()
            with suppress(OSError):
                if self.path.stat().st_size == 0:
                    self.path.unlink()

    def _remote_rows(self) -> bytes:
        names = sorted(name for name in self._output.files() if name.startswith(f"{FOLDER}/rows-"))
        return b"".join(self._output.read(name) for name in names)

    def _read(self) -> None:
        self._file.seek(0)
        for place, row in _lines(self._file):
            self._places[row["name"]] = place


def _lines(file: IO[bytes]) -> Iterator[tuple[int, Row]]:
    """(place, row) of every line; a line that an interruption cut off is skipped."""
    place = 0
    for line in file:
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if isinstance(row, dict) and isinstance(row.get("name"), str):
            yield place, row
        place += len(line)
