"""Writes files whole or not at all, and JSON that every reader takes."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from fastsam3d.errors import UserError


def write_atomically(path: str | Path, data: bytes) -> Path:
    """Writes a file so that nobody ever sees a part of it; folders are made as needed.

    The bytes go to a temporary name in the same folder, which then takes the place of the file.

    Raises:
        UserError: the folder or file cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(data)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"{path} cannot be written: {error.strerror or error}. Choose another output folder."
        ) from error
    return path


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
