"""Writes files whole or not at all, and JSON that every reader takes."""

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
    """Writes a file so that nobody ever sees a part of it; folders are made as needed.

    The bytes go to a temporary name in the same folder, and to the disk, and then take the place of the file.

    Raises:
        UserError: the folder or file cannot be written.
    """
    path = Path(path)
    # Of one length whatever the file is called: a long name has no room for more.
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
    with contextlib.suppress(OSError):  # Windows opens no folders
        number = os.open(path, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def write_text(path: str | Path, text: str) -> Path:
    """A UTF-8 text file; see `write_atomically`."""
    return write_atomically(path, text.encode())


def write_json(path: str | Path, value: Any) -> Path:
    """Valid JSON: numbers that are not finite become null; see `write_atomically`."""
    return write_text(path, json.dumps(finite(value), indent=1, allow_nan=False) + "\n")


def finite(value: Any) -> Any:
    """The value as strict JSON has it: arrays become lists, paths text, infinities and NaN null."""
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    if isinstance(value, Path):
        value = str(value)
    if isinstance(value, str):
        # A file's name need not be text: its strange bytes are written as escapes.
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if hasattr(value, "tolist"):
        return finite(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value
