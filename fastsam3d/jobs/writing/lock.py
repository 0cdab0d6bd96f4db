"""One run at a time in an output folder."""

from __future__ import annotations

import json
import os
import platform
from contextlib import suppress
from pathlib import Path
from typing import Any

from fastsam3d.basics.processes.file_locks import try_lock
from fastsam3d.errors import UserError

LOCK = ".fastsam3d-lock"


class FolderTaken(UserError):
    """Another run works in the folder."""


class FolderLock:
    """A file in the output folder that says which process works there.

    The operating system frees the lock of a process that dies, so the file of a dead process of this machine is taken
    over. Of another machine, which cannot be asked, it has to be removed by hand.

    Args:
        folder: exists.

    Raises:
        FolderTaken: another run works in the folder.
        OSError: the file cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOCK
        self._file: int | None = None
        while self._file is None:
            file = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
            try:
                if try_lock(file) is False:
                    raise self._taken(_owner(file))
                # Somebody may have removed the file between opening and locking it: then the lock holds nothing.
                if _same(file, self.path):
                    owner = _owner(file)
                    if _may_run(owner):
                        raise self._taken(owner)
                    os.ftruncate(file, 0)
                    os.lseek(file, 0, os.SEEK_SET)
                    os.write(file, json.dumps(_own_facts()).encode("utf-8"))
                    self._file, file = file, -1
            finally:
                if file != -1:
                    os.close(file)

    def release(self) -> None:
        """Removes the file. Does nothing the second time."""
        if self._file is None:
            return
        file, self._file = self._file, None
        if os.name != "posix":  # Windows removes no open files, and a file that the next run holds stays
            os.close(file)
        with suppress(OSError):
            self.path.unlink()
        if os.name == "posix":
            os.close(file)

    def _taken(self, owner: dict[str, Any]) -> FolderTaken:
        folder = self.path.parent
        process, host = owner.get("process", "unknown"), owner.get("host", "unknown")
        here = host == platform.node()
        way_out = "" if here else f" If that run is over, remove {self.path}."
        return FolderTaken(
            f"another run works in {folder} (process {process} on {host}): wait for it, or choose another "
            f"--output_dir.{way_out}"
        )


def process_start(process: int) -> str | None:
    """When a process of this machine began, in the system's own unit; None where that is not known.

    Numbers of processes are given again: with their start they are one of a kind.
    """
    try:
        return Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except (OSError, IndexError, ValueError):
        return None


def is_running(process: int) -> bool:
    """Whether a process of this machine may be running."""
    if os.name != "posix":  # elsewhere this question would end the process
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def _own_facts() -> dict[str, Any]:
    return {"host": platform.node(), "process": os.getpid(), "start": process_start(os.getpid())}


def _owner(file: int) -> dict[str, Any]:
    try:
        os.lseek(file, 0, os.SEEK_SET)
        facts = json.loads(os.read(file, 4096))
        return facts if isinstance(facts, dict) else {}
    except (OSError, ValueError):
        return {}


def _may_run(owner: dict[str, Any]) -> bool:
    """Tells whether the process that wrote the file may still work, though nobody else holds the system's lock."""
    process = owner.get("process")
    if not isinstance(process, int) or process <= 0:
        return False
    if owner.get("host") != platform.node():
        return True
    if os.name != "posix":  # processes cannot be asked there; but the lock of a dead one is free
        return False
    start = process_start(process)
    known = owner.get("start")
    return is_running(process) and process != os.getpid() and (start is None or known is None or start == known)


def _same(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except OSError:
        return False
