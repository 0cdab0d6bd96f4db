"""Keeps uploaded files until they are read: their names cannot be guessed, and size and number are limited.

Gradio's own uploads are not used. There a visitor's event names the file's path, and an application that is mounted
rather than launched believes it (Gradio 6.31, `processing_utils._check_allowed`), for any file of the machine.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import shutil
import threading
from collections.abc import AsyncIterator
from pathlib import Path, PurePosixPath
from typing import Any

from fastsam3d.errors import UserError

CAPACITY = 40
"""Largest number of files that wait to be taken; the oldest are removed first."""
NAME_LENGTH = 80
IN_FLIGHT, TIME_LIMIT = 8, 120.0
"""Largest number of uploads at the same time, and largest duration of one, in seconds."""


class TooManyUploads(UserError):
    """The largest number of files is being uploaded already."""


class Intake:
    """Stores uploaded files and gives each of them out once.

    Args:
        folder: folder in which they are stored.
        limit: largest size of one file, in bytes.
        capacity: largest number of files that wait to be taken.
        in_flight: largest number of uploads at the same time.
        time_limit: largest duration of one upload, in seconds.
    """

    def __init__(
        self,
        folder: Path,
        limit: int,
        capacity: int = CAPACITY,
        in_flight: int = IN_FLIGHT,
        time_limit: float = TIME_LIMIT,
    ) -> None:
        self._folder, self._limit, self._capacity = folder, limit, capacity
        self._in_flight, self._time_limit = in_flight, time_limit
        self._arriving = 0
        self._files: dict[str, Path] = {}
        self._lock = threading.Lock()

    async def receive(self, name: str, chunks: AsyncIterator[bytes]) -> str:
        """Stores a file; returns its token for `take`.

        Raises:
            TooManyUploads: too many other files are being uploaded.
            UserError: the upload is too large or too slow. Then no part of it is kept.
        """
        with self._lock:
            if self._arriving >= self._in_flight:
                raise TooManyUploads("Too many files are being uploaded. Try again in a minute.")
            self._arriving += 1
        try:
            return await asyncio.wait_for(self._receive(name, chunks), self._time_limit)
        except asyncio.TimeoutError:
            raise UserError(f"The upload took more than {self._time_limit:.0f} s. Make the file smaller.") from None
        finally:
            with self._lock:
                self._arriving -= 1

    async def _receive(self, name: str, chunks: AsyncIterator[bytes]) -> str:
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
        """Returns the file of a token. The caller then owns the file, and calls `discard` at the end.

        Raises:
            UserError: there is no such file, or it was taken already.
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
    """Returns the last part of a file's name, without characters that are special in a file system or a page."""
    last = PurePosixPath(name.replace("\\", "/")).name
    cleaned = re.sub(r"[^\w. -]", "_", last).strip(". ")
    stem, dot, suffix = cleaned.rpartition(".")
    return (f"{stem[: NAME_LENGTH - 8]}.{suffix[:7]}" if dot else cleaned[:NAME_LENGTH]) or "upload"
