"""Writing files whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

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
