"""A temporary folder that is removed in the end: by its own process, or, where that was killed, by the next one."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from fastsam3d.basics.processes.file_locks import try_lock

PREFIX = "fastsam3d-demo-"
LOCK = ".lock"
FRESH = 60.0
"""Seconds in which a folder without a lock file may be one that is just being made."""


@contextlib.contextmanager
def own_folder(prefix: str = PREFIX, parent: Path | None = None) -> Iterator[Path]:
    """A folder for this process, readable by this user alone; those that killed processes left behind are removed.

    A lock file in it is held by the process; the system lets it go when the process ends, however it ends.

    Args:
        parent: default the system's folder for temporary files.
    """
    parent = Path(tempfile.gettempdir()) if parent is None else parent
    remove_abandoned(prefix, parent)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=parent) as name, (Path(name) / LOCK).open("w") as lock:
        try_lock(lock.fileno())
        yield Path(name)


def remove_abandoned(prefix: str, parent: Path) -> list[Path]:
    """Removes folders of `own_folder` whose process has ended; returns them. Links and other users' are left alone."""
    removed = []
    for folder in sorted(parent.glob(f"{prefix}*")):
        try:
            if folder.is_symlink() or not folder.is_dir() or folder.stat().st_uid != os.getuid():
                continue
            lock = folder / LOCK
            if lock.is_file():
                with lock.open("r+") as file:
                    if not try_lock(file.fileno()):
                        continue
            elif time.time() - folder.stat().st_mtime < FRESH:
                continue
            shutil.rmtree(folder)
            removed.append(folder)
        except (OSError, AttributeError):  # it is somebody else's, or gone; systems without users are left alone
            continue
    return removed
