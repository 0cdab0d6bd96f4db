"""Locks of open files, which the system frees when their process ends, however it ends."""

from __future__ import annotations

import errno
import os

_FAR = 1 << 30
"""Byte that is locked on Windows. Its locks forbid reading, so the byte lies behind everything that is written."""


def try_lock(file: int) -> bool | None:
    """Locks an open file for this process alone, without waiting.

    Args:
        file: descriptor, open for writing.

    Returns:
        True: locked until the file is closed. False: somebody else holds the lock. None: the file system, or the
        system, has no locks.
    """
    try:
        import fcntl
    except ImportError:
        return _try_lock_byte(file)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _try_lock_byte(file: int) -> bool | None:
    """Does the same on Windows, with a lock of one byte."""
    try:
        import msvcrt
    except ImportError:
        return None
    place = os.lseek(file, 0, os.SEEK_CUR)
    try:
        os.lseek(file, _FAR, os.SEEK_SET)
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
    except OSError as error:
        return False if error.errno in (errno.EACCES, errno.EDEADLK) else None
    finally:
        os.lseek(file, place, os.SEEK_SET)
    return True
