"""Paths that users give: `~` is replaced, and what is no readable file or folder is refused before it is opened."""

from __future__ import annotations

import os
from pathlib import Path

from fastsam3d.errors import UserError


def user_path(text: str | Path) -> Path:
    """Returns the path with `~` and `~name` replaced by the home folder.

    Nothing need be there. But the system must be able to look: `Path.exists` raises an error where it is not.

    Raises:
        UserError: the user of `~name` does not exist, the text cannot be a path, a folder on the way may not be looked
            into, or links lead in a circle.
    """
    if "\0" in str(text):
        raise UserError(f"the path {str(text)!r} holds a zero byte. Check the path.")
    try:
        path = Path(text).expanduser()
        path.stat()
    except RuntimeError:
        raise UserError(f"{text} names the home folder of an unknown user. Write the path without ~.") from None
    except (FileNotFoundError, NotADirectoryError):
        return path
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"the path {shortened(str(text))} cannot be looked for ({reason}). Check the path.") from None
    return path


def shortened(text: str, longest: int = 300) -> str:
    """Returns a text for a message; of a long one its beginning and its end."""
    return text if len(text) <= longest else f"{text[: longest // 2]}...{text[-longest // 4 :]}"


def require_file(path: Path, what: str, largest: int | None = None) -> Path:
    """Returns the path if it is a regular file. Opening a pipe would wait forever, and a device has no end.

    Args:
        what: name of the file in messages, with its path.
        largest: largest size of the file in bytes; None: no limit.

    Raises:
        UserError: it does not exist, is not a regular file, may not be read, or is too large.
    """
    try:
        if path.is_file():
            if not os.access(path, os.R_OK):
                raise UserError(f"{what} may not be read by you (permission denied). Change its permissions.")
            size = path.stat().st_size
            if largest is None or size <= largest:
                return path
            limit = f"up to {largest / 2**20:.0f} are read"
            raise UserError(f"{what} has {size / 2**20:.1f} MiB; {limit}. Make it smaller.")
        if path.is_dir():
            raise UserError(f"{what} is a folder. Give the file.")
        if path.exists():
            raise UserError(f"{what} is a pipe or a device and no file. Give a file.")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{what} cannot be looked for ({reason}). Check the path.") from None
    raise UserError(f"{what} does not exist. Check the path.")


def require_folder(path: Path) -> Path:
    """Returns the path of an existing folder if its files can be listed and opened.

    Raises:
        UserError: the permissions forbid it.
    """
    if not os.access(path, os.R_OK | os.X_OK):
        raise UserError(f"the folder {path} may not be read by you (permission denied). Change its permissions.")
    return path
