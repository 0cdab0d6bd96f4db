"""Prevents that a run overwrites a file that it has read: files are compared by identity, not by name."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from fastsam3d.basics.paths import user_path
from fastsam3d.errors import UserError


class ReadFiles:
    """The files that a run has read.

    A file is identified by its device and number (`os.path.samestat`). So a link, another spelling of the path, or
    another case on a file system that ignores case is recognised as the same file.

    Args:
        paths: paths of the files; those that do not exist are ignored.
    """

    def __init__(self, paths: Iterable[str | Path] = ()) -> None:
        self._known: dict[tuple[int, int], Path] = {}
        self._paths = [Path(path) for path in paths]
        for path in self._paths:
            if (identity := _identity(path)) is not None:
                self._known.setdefault(identity, path)

    def refuse(self, folder: Path, names: Iterable[str]) -> None:
        """Refuses to write a file of one of the names in a folder if that file was read.

        Raises:
            UserError: one of them was read.
        """
        for name in sorted(names):
            identity = _identity(folder / name)
            if identity is not None and identity in self._known:
                known = self._known[identity]
                other = "" if known == folder / name else f" as {known}"
                raise UserError(
                    f"{folder / name} was read in this run{other} and would be overwritten by a result. Nothing is "
                    "written. Choose another --output_dir, or another name."
                )

    def refuse_inside(self, folder: Path) -> None:
        """Refuses a working folder that holds a file that was read, because it is cleared.

        Raises:
            UserError: it holds such a file.
        """
        whole = folder.resolve()
        for path in self._paths:
            if path.resolve().is_relative_to(whole):
                raise UserError(
                    f"{path} was read in this run and lies in {folder}, which the run clears: move it, or choose "
                    "another --output_dir."
                )


def refuse_masks_folder(output: str | Path, masks: str | None) -> None:
    """Refuses to write into the folder of the masks: results there would be read as masks the next time.

    Raises:
        UserError: the two are the same folder.
    """
    if masks is None:
        return
    folder, own = user_path(output), user_path(masks)
    try:
        same = own.is_dir() and os.path.samefile(folder, own)
    except OSError:  # one of them does not exist
        return
    if same:
        raise UserError(
            f"the output folder {folder} is the folder of the masks: results there would be taken for masks. "
            "Choose another --output_dir."
        )


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino
