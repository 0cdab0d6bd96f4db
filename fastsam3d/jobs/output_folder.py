"""Publishes results in the output folder all together or not at all."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from fastsam3d.basics.files import finite, flush_to_disk, write_atomically
from fastsam3d.basics.paths import user_path
from fastsam3d.errors import UserError
from fastsam3d.jobs.listener import SILENT, Listener
from fastsam3d.jobs.writing.inputs import ReadFiles
from fastsam3d.jobs.writing.lock import FolderLock, is_running

JOURNAL = ".journal"
"""File in the hidden folder that lists the files of a run once all of them are written: they belong together."""
LAST = "report.json"
"""Moved last: whoever finds it finds the other files too."""


class OutputFolder:
    """Collects files in a hidden folder beside their final place and moves them there in `publish`.

    A context manager, for one run at a time. What was not published when it ends is removed, with the folders that it
    made. What a process that was killed left there goes when the next one enters, unless all of it was written and some
    of it moved already: then the rest is moved as well, so that the files of two runs never stand together.

    Args:
        path: of the output folder, which need not exist.
        read: files that the run has read, which are never written.
        names: of files that the run may write, to be refused before any work.
        listener: is told of an unfinished run.

    Raises:
        UserError: on entering, if the folder cannot be made or written to, another run works in it, or a file that was
            read would be written.
    """

    def __init__(
        self,
        path: str | Path,
        read: Iterable[str | Path] = (),
        names: Iterable[str] = (),
        listener: Listener = SILENT,
    ) -> None:
        self.path = user_path(path)
        self.staging = self.path / f"{_partial_prefix()}{os.getpid()}"
        self.published = False
        self._read, self._names = ReadFiles(read), tuple(names)
        self._listener = listener
        self._lock: FolderLock | None = None
        self._made: list[Path] = []

    def __enter__(self) -> OutputFolder:
        self._read.refuse(self.path, self._names)
        self._read.refuse_inside(self.staging)
        try:
            missing = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
            self.path.mkdir(parents=True, exist_ok=True)
            self._made = missing
            self._lock = FolderLock(self.path)
            finished = remove_leftovers(self.path, self._read)
            if finished:
                self._listener.warn(
                    f"an earlier run was stopped while it moved its files to {self.path}: the last {len(finished)} of "
                    f"them were moved now ({finished[0]}{', ...' * (len(finished) > 1)})."
                )
            shutil.rmtree(self.staging, ignore_errors=True)
            self.staging.mkdir()
        except OSError as error:
            self._clean()
            raise UserError(
                f"cannot write to the output folder {self.path} ({error.strerror or error}): "
                "choose another with --output_dir DIR."
            ) from None
        except BaseException:
            self._release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._clean()
        if isinstance(error, UserError) and self.shown(str(error)) != str(error):
            raise UserError(self.shown(str(error))) from error

    def shown(self, text: str) -> str:
        """A message without the hidden folder: a file is called by the name that it would have had."""
        return text.replace(str(self.staging), str(self.path)).replace(self.staging.name, self.path.name)

    def __truediv__(self, name: str) -> Path:
        """Path at which to write the file that will be called `name`."""
        return self.staging / name

    def write_json(self, name: str, value: Any) -> None:
        """Writes strict JSON: numbers that are not finite become null."""
        (self / name).write_text(json_text(value), encoding="utf-8")

    def staged(self) -> list[Path]:
        """The files that were written so far, at their hidden place."""
        return sorted(self.staging.iterdir())

    def keep(self) -> None:
        """Keeps the folder whatever happens, because something in it is worth keeping."""
        self._made = []

    def publish(self) -> list[Path]:
        """Moves everything to its place, replacing files of the same name; returns the paths.

        All of it or nothing, also if the process is killed meanwhile: see the class. An interruption waits for the end.

        Raises:
            UserError: a place is taken by a folder, cannot be written, or is a file that was read.
        """
        names = sorted((path.name for path in self.staging.iterdir()), key=lambda name: (name == LAST, name))
        taken = [name for name in names if (self.path / name).is_dir()]
        if taken:
            raise UserError(f"{self.path / taken[0]} is a folder: remove it, or choose another --output_dir.")
        self._read.refuse(self.path, names)
        for name in names:
            flush_to_disk(self.staging / name)
        write_atomically(self.staging / JOURNAL, json_text({"names": names}).encode("utf-8"))
        interrupted: KeyboardInterrupt | None = None
        while not self.published:
            try:
                _move_listed(self.staging, self.path, names)
                self.published = True
            except KeyboardInterrupt as error:
                interrupted = error
            except OSError as error:
                raise UserError(f"cannot write to {self.path} ({error.strerror or error}).") from None
        self._made = []
        if interrupted is not None:
            raise KeyboardInterrupt("interrupted; all files were written already")
        return [self.path / name for name in names]

    def _clean(self) -> None:
        shutil.rmtree(self.staging, ignore_errors=True)
        self._release()

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None
        for folder in self._made:
            try:
                folder.rmdir()
            except OSError:
                break


def remove_leftovers(folder: Path, read: ReadFiles | None = None) -> list[str]:
    """Removes hidden folders that processes of this machine which are gone have left in an output folder.

    What such a process had written whole and begun to move is moved to the end first. Nothing else is touched: no link,
    no folder of another name, of a running process or of another machine.

    Args:
        read: files that this run has read, which are never written.

    Returns:
        The names that were moved.

    Raises:
        UserError: one of them was read in this run.
        OSError: one cannot be moved.
    """
    name = re.compile(re.escape(_partial_prefix()) + r"([1-9][0-9]*)")
    moved: list[str] = []
    for path in sorted(folder.iterdir()):
        found = name.fullmatch(path.name)
        if found and path.is_dir() and not path.is_symlink() and _is_over(int(found[1])):
            names = [name for name in _journal(path) if (path / name).is_file() and not (folder / name).is_dir()]
            (read or ReadFiles()).refuse(folder, names)
            _move_listed(path, folder, names)
            moved += names
            shutil.rmtree(path, ignore_errors=True)
    return moved


def _is_over(process: int) -> bool:
    # This process holds the folder's lock, so one of its own number is an earlier one, as in containers.
    return process == os.getpid() or not is_running(process)


def _move_listed(staging: Path, folder: Path, names: Iterable[str]) -> None:
    """Moves the files of the names that are not moved yet."""
    for name in names:
        with suppress(FileNotFoundError):  # moved before an interruption
            os.replace(staging / name, folder / name)
    flush_to_disk(folder)


def _journal(staging: Path) -> list[str]:
    """Names of the files that a run had written whole; none where it had not come so far."""
    try:
        names = json.loads((staging / JOURNAL).read_text(encoding="utf-8"))["names"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    valid = isinstance(names, list) and all(isinstance(name, str) and Path(name).name == name for name in names)
    return names if valid else []


def _partial_prefix() -> str:
    # With the machine's name: two that share a folder cannot see each other's processes.
    return f".partial-{re.sub('[^A-Za-z0-9]', '-', platform.node())}-"


def json_text(value: Any) -> str:
    """Indented strict JSON with a final newline."""
    return json.dumps(finite(value), indent=2, allow_nan=False, ensure_ascii=False) + "\n"
