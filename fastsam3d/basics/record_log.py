"""Writes measurements to disk as they are made, so that an interrupted run can continue.

A log is a file of JSON lines. Its first line says which run it belongs to. Records of another run are never used, and
the error names the difference. Only the code may differ, because small changes happen during a long run. The log, and
results that are made of it, then name every version.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fastsam3d.basics.files import finite
from fastsam3d.errors import UserError

Record = dict[str, Any]
CODE = "code"
"""Key of the identity that may differ between the parts of one run."""
EARLIER_CODE = "earlier_code"
"""Key of the identity that lists the values of `CODE` of the earlier parts, if they differ."""


class RecordLog:
    """Records of one run, in memory and, given a path, on disk.

    Args:
        path: path of the JSON lines; None keeps everything in memory.
        identity: plain values that are the same for all records of the run.
        resume: false deletes the records of an earlier run.

    Raises:
        UserError: the file belongs to another run.
    """

    def __init__(self, path: Path | None, identity: Mapping[str, Any], *, resume: bool = True) -> None:
        self.path = path
        self.identity: Record = finite(dict(identity))
        self.records: list[Record] = []
        if path is None:
            return
        if resume and path.exists():
            header, self.records = read_log(path)
            self._check(header, path)
            end_last_line(path)
            earlier = list(header.get(EARLIER_CODE, []))
            same = header.get(CODE) == self.identity.get(CODE)
            if not same and self.records:
                earlier.append(header.get(CODE))
            if earlier:
                self.identity[EARLIER_CODE] = earlier
            if not same:
                self._write([self.identity])
        else:
            path.unlink(missing_ok=True)
            self._write([self.identity])

    def append(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Adds records. They are on disk when this method returns."""
        fresh = [finite(dict(record)) for record in records]
        self.records += fresh
        self._write(fresh)

    def select(self, **values: Any) -> list[Record]:
        """Returns the records with these values."""
        return [record for record in self.records if all(record.get(key) == value for key, value in values.items())]

    def _write(self, values: Sequence[Record]) -> None:
        if self.path is not None:
            # One write for all, so that an interruption leaves at most one broken line at the end.
            text = "".join(json.dumps(value, allow_nan=False) + "\n" for value in values)
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(text)

    def _check(self, header: Record, path: Path) -> None:
        for key, value in self.identity.items():
            if key != CODE and header.get(key) != value:
                raise UserError(
                    f"{path} holds records of another run: {_difference(key, header.get(key), value)}. Choose another "
                    "output, give the same options as then, or resume=false to measure everything again"
                )


def _difference(key: str, then: Any, now: Any) -> str:
    if isinstance(then, dict) and isinstance(now, dict):
        name = next(name for name in [*now, *then] if then.get(name) != now.get(name))
        return _difference(f"{key}.{name}", then.get(name), now.get(name))
    shown = [str(value) if len(str(value)) <= 60 else "different" for value in (then, now)]
    return f"{key} was {shown[0]} and is {shown[1]}"


def read_log(path: Path) -> tuple[Record, list[Record]]:
    """Returns the header and the records of a log. A line that an interruption cut off is skipped.

    If parts of the run had different code, the header is that of the last part.
    """
    header: Record = {}
    records = []
    for value in json_lines(path):
        if "kind" in value:
            records.append(value)
        else:
            header = value
    return header, records


def json_lines(path: Path) -> list[Record]:
    """Returns the objects of a file of JSON lines. A line that an interruption cut off is skipped."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            value = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(value, dict):
            found.append(value)
    return found


def end_last_line(path: Path) -> None:
    """Ends a last line that an interruption cut off, so that appended text begins a line of its own."""
    content = path.read_bytes()
    if content and not content.endswith(b"\n"):
        with path.open("ab") as stream:
            stream.write(b"\n")
