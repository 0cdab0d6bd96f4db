"""A temporary folder that its own process removes at its end. If that process was killed, the next one removes it."""

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
"""Seconds after which a folder without a lock file is abandoned. A younger one may be just being made."""


@contextlib.contextmanager
def own_folder(prefix: str = PREFIX, parent: Path | None = None) -> Iterator[Path]:
    """Makes a folder for this process, readable by this user only, and removes folders of killed processes.

    The process locks a file in it. The system frees the lock when the process ends, also if it was killed.

    Args:
        parent: the folder in which it is made; by default the system's folder for temporary files.
    """
    parent = Path(tempfile.gettempdir()) if parent is None else parent
    remove_abandoned(prefix, parent)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=parent) as name, (Path(name) / LOCK).open("w") as lock:
        try_lock(lock.fileno())
        yield Path(name)


def remove_abandoned(prefix: str, parent: Path) -> list[Path]:
    """Removes folders of `own_folder` whose process has ended; returns them. Links and other users' folders stay."""
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
        except (OSError, AttributeError):  # it belongs to another user, or is gone; on systems without users it stays
            continue
    return removed
