"""Writes files completely or not at all, and JSON that every reader accepts."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import threading
from pathlib import Path
from typing import Any

from fastsam3d.errors import UserError


def write_atomically(path: str | Path, data: bytes) -> Path:
    """Writes a file completely or not at all; missing folders are made.

    The bytes go to a temporary file in the same folder, and to the disk. Then this file replaces the old one.

    Raises:
        UserError: the folder or file cannot be written.
    """
    path = Path(path)
    # Of the same length for every file, because a long name has no room for more characters.
    short = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]
    temporary = path.with_name(f".{short}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            flush_to_disk(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"{path} cannot be written: {error.strerror or error}. Choose another output folder."
        ) from error
    return path


def flush_to_disk(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk, where the system can do that."""
    with contextlib.suppress(OSError):  # Windows cannot open folders
        number = os.open(path, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def write_text(path: str | Path, text: str) -> Path:
    """Writes a UTF-8 text file; see `write_atomically`."""
    return write_atomically(path, text.encode())


def write_json(path: str | Path, value: Any) -> Path:
    """Writes valid JSON: numbers that are not finite become null; see `write_atomically`."""
    return write_text(path, json.dumps(finite(value), indent=1, allow_nan=False) + "\n")


def finite(value: Any) -> Any:
    """Converts a value to strict JSON: arrays become lists, paths become text, infinities and NaN become null."""
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    if isinstance(value, Path):
        value = str(value)
    if isinstance(value, str):
        # A file's name need not be valid text: its other bytes are written as escapes.
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if hasattr(value, "tolist"):
        return finite(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value
