"""Paths that users give: `~` is replaced, and paths that are not regular files are refused before they are opened."""

from __future__ import annotations

from pathlib import Path

from fastsam3d.errors import UserError


def user_path(text: str | Path) -> Path:
    """Returns the path with `~` and `~name` replaced by the home folder.

    Raises:
        UserError: the user of `~name` does not exist, or the text cannot be a path.
    """
    if "\0" in str(text):
        raise UserError(f"the path {str(text)!r} holds a zero byte. Check the path.")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise UserError(f"{text} names the home folder of an unknown user. Write the path without ~.") from None


def require_file(path: Path, what: str, largest: int | None = None) -> Path:
    """Returns the path if it is a regular file. Opening a pipe would wait forever, and a device has no end.

    Args:
        what: name of the file in messages, with its path.
        largest: largest size of the file in bytes; None: no limit.

    Raises:
        UserError: it does not exist, is not a regular file, or is too large.
    """
    try:
        if path.is_file():
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
