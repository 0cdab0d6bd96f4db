"""Keeps uploaded files until they are read: under names that cannot be guessed, bounded in size and number.

Gradio's own uploads are not used. There a visitor's event names the file's path, and an application that is mounted
rather than launched believes it (Gradio 6.31, `processing_utils._check_allowed`), for any file of the machine.
"""

from __future__ import annotations

import re
import secrets
import shutil
import threading
from collections.abc import AsyncIterator
from pathlib import Path, PurePosixPath
from typing import Any

from fastsam3d.errors import UserError

CAPACITY = 40
"""Files that are kept while nobody has asked for them; the oldest go first."""
NAME_LENGTH = 80


class Intake:
    """Takes files in and hands each out once.

    Args:
        folder: where they lie meanwhile.
        limit: bytes of one file.
    """

    def __init__(self, folder: Path, limit: int, capacity: int = CAPACITY) -> None:
        self._folder, self._limit, self._capacity = folder, limit, capacity
        self._files: dict[str, Path] = {}
        self._lock = threading.Lock()

    async def receive(self, name: str, chunks: AsyncIterator[bytes]) -> str:
        """Stores a file; returns the token that `take` wants.

        Raises:
            UserError: it is too large. Nothing of it is kept.
        """
        token = secrets.token_urlsafe(16)
        path = self._folder / token / safe_name(name)
        path.parent.mkdir(parents=True, mode=0o700)
        try:
            size = 0
            with path.open("wb") as file:
                async for chunk in chunks:
                    size += len(chunk)
                    if size > self._limit:
                        raise UserError(f"{path.name} is larger than {self._limit / 2**20:.0f} MiB. Make it smaller.")
                    file.write(chunk)
        except BaseException:
            shutil.rmtree(path.parent, ignore_errors=True)
            raise
        with self._lock:
            self._files[token] = path
            surplus = list(self._files)[: max(0, len(self._files) - self._capacity)]
            gone = [self._files.pop(old) for old in surplus]
        for old in gone:
            shutil.rmtree(old.parent, ignore_errors=True)
        return token

    def take(self, token: Any) -> Path:
        """Hands out the file of a token. The caller owns it from now on, and calls `discard` when done.

        Raises:
            UserError: there is none, or it was taken.
        """
        with self._lock:
            path = self._files.pop(token, None) if isinstance(token, str) else None
        if path is None:
            raise UserError("The upload is gone. Choose the file again.")
        return path

    @staticmethod
    def discard(path: Path) -> None:
        """Removes a file that was taken."""
        shutil.rmtree(path.parent, ignore_errors=True)


def safe_name(name: str) -> str:
    """Returns the last part of a file's name, without signs that mean something to a file system or a page."""
    last = PurePosixPath(name.replace("\\", "/")).name
    cleaned = re.sub(r"[^\w. -]", "_", last).strip(". ")
    stem, dot, suffix = cleaned.rpartition(".")
    return (f"{stem[: NAME_LENGTH - 8]}.{suffix[:7]}" if dot else cleaned[:NAME_LENGTH]) or "upload"
