"""Allows only one run at a time in an output folder."""

from __future__ import annotations

import json
import os
import platform
from contextlib import suppress
from pathlib import Path
from typing import Any

from fastsam3d.errors import UserError

LOCK = ".fastsam3d-lock"


class FolderTaken(UserError):
    """Another run works in the folder."""


class FolderLock:
    """A file in the output folder that says which process works there.

    The operating system frees the lock of a process that ends. So the file of an ended process of this machine is
    taken over. Processes of another machine cannot be checked: the user has to remove their file.

    Args:
        folder: an existing folder.

    Raises:
        FolderTaken: another run works in the folder.
        OSError: the file cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOCK
        self._file: int | None = None
        try:
            import fcntl
        except ImportError:  # Windows has no such lock
            return
        while self._file is None:
            file = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
            try:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise self._taken(_owner(file)) from None
                except OSError:
                    pass  # a file system without locks: the content of the file decides
                # The file may have been removed between opening and locking it. Then the lock has no effect.
                if _same(file, self.path):
                    owner = _owner(file)
                    if _may_run(owner):
                        raise self._taken(owner)
                    os.ftruncate(file, 0)
                    os.pwrite(file, json.dumps(_own_facts()).encode("utf-8"), 0)
                    self._file, file = file, -1
            finally:
                if file != -1:
                    os.close(file)

    def release(self) -> None:
        """Removes the file. A second call does nothing."""
        if self._file is not None:
            with suppress(OSError):
                self.path.unlink()
            os.close(self._file)
            self._file = None

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
    """Returns when a process of this machine began, in the system's own unit; None if that is not known.

    The system uses the numbers of ended processes again. Number and start together are unique.
    """
    try:
        return Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except (OSError, IndexError, ValueError):
        return None


def is_running(process: int) -> bool:
    """Tells whether a process of this machine may be running."""
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
        facts = json.loads(os.pread(file, 4096, 0))
        return facts if isinstance(facts, dict) else {}
    except (OSError, ValueError):
        return {}


def _may_run(owner: dict[str, Any]) -> bool:
    """Tells whether the process that wrote the file may still work, even if the system's lock is free."""
    process = owner.get("process")
    if not isinstance(process, int) or process <= 0:
        return False
    if owner.get("host") != platform.node():
        return True
    start = process_start(process)
    known = owner.get("start")
    return is_running(process) and process != os.getpid() and (start is None or known is None or start == known)


def _same(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except OSError:
        return False
