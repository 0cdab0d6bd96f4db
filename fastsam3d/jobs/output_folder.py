"""Publishes the results of a run in the output folder all together or not at all."""

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
"""File in the hidden folder that lists the files of a run. It is written when all of them are complete."""
LAST = "report.json"
"""Moved last: if this file is there, all other files are there, too."""


class OutputFolder:
    """Collects files in a hidden folder inside the output folder, and moves them to their final place in `publish`.

    A context manager, for one run at a time. At its end it removes files that were not published, and folders that it
    made. If a process was killed, the next run removes its files. One exception: if all files were complete and
    some were moved already, the next run moves the rest. So the files of two runs are never mixed.

    Args:
        path: path of the output folder, which need not exist.
        read: files that the run has read; they are never overwritten.
        names: names of files that the run may write; they are checked before any work.
        listener: gets a message about an unfinished run.

    Raises:
        UserError: on entering, if the folder cannot be made or written to, another run works in it, or a file that was
            read would be overwritten.
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
        """Returns a message without the hidden folder: it names the final path of each file."""
        return text.replace(str(self.staging), str(self.path)).replace(self.staging.name, self.path.name)

    def __truediv__(self, name: str) -> Path:
        """Returns the path at which to write the file that will be called `name`."""
        return self.staging / name

    def write_json(self, name: str, value: Any) -> None:
        """Writes strict JSON: numbers that are not finite become null."""
        (self / name).write_text(json_text(value), encoding="utf-8")

    def staged(self) -> list[Path]:
        """Returns the files that were written so far, in the hidden folder."""
        return sorted(self.staging.iterdir())

    def keep(self) -> None:
        """Keeps the output folder, even if nothing is published, because it holds useful files."""
        self._made = []

    def publish(self) -> list[Path]:
        """Moves all files to their final place, replaces files of the same name, and returns the paths.

        All files are moved or none, also if the process is killed: see the class. An interruption waits for the end.

        Raises:
            UserError: a final path is a folder, cannot be written, or is a file that was read.
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
    """Removes hidden folders in an output folder that ended processes of this machine have left there.

    If such a process had completed its files and begun to move them, the rest is moved first. No link is removed,
    and no folder of another name, of a running process or of another machine.

    Args:
        read: files that this run has read; they are never overwritten.

    Returns:
        The names that were moved.

    Raises:
        UserError: a file to be moved would replace a file that was read in this run.
        OSError: a file cannot be moved.
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
    # This process holds the folder's lock. So a folder with its number belongs to an earlier process, as in containers.
    return process == os.getpid() or not is_running(process)


def _move_listed(staging: Path, folder: Path, names: Iterable[str]) -> None:
    """Moves the files that are not moved yet."""
    for name in names:
        with suppress(FileNotFoundError):  # moved before an interruption
            os.replace(staging / name, folder / name)
    flush_to_disk(folder)


def _journal(staging: Path) -> list[str]:
    """Returns the names of the files of a run that had completed all of them; none if it had not."""
    try:
        names = json.loads((staging / JOURNAL).read_text(encoding="utf-8"))["names"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    valid = isinstance(names, list) and all(isinstance(name, str) and Path(name).name == name for name in names)
    return names if valid else []


def _partial_prefix() -> str:
    # With the machine's name, because two machines that share a folder cannot see each other's processes.
    return f".partial-{re.sub('[^A-Za-z0-9]', '-', platform.node())}-"


def json_text(value: Any) -> str:
    """Returns indented strict JSON with a final newline."""
    return json.dumps(finite(value), indent=2, allow_nan=False, ensure_ascii=False) + "\n"
