"""Paths that users give: `~` is replaced, and what is no regular file is refused before it is opened."""

from __future__ import annotations

from pathlib import Path

from fastsam3d.errors import UserError


def user_path(text: str | Path) -> Path:
    """The path with `~` and `~name` replaced by the home folder.

    Raises:
        UserError: there is no such user, or the text cannot be a path.
    """
    if "\0" in str(text):
        raise UserError(f"the path {str(text)!r} holds a zero byte. Check the path.")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise UserError(f"{text} names the home folder of an unknown user. Write the path without ~.") from None


def require_file(path: Path, what: str, largest: int | None = None) -> Path:
    """The path, where it is a regular file: a pipe would block whoever opens it, and a device has no end.

    Args:
        what: it is called in messages, with its path.
        largest: bytes that the file may have; None: any number.

    Raises:
        UserError: there is none, it is something else, or it is too large.
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
