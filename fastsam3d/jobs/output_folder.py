"""Publishes results in the output folder all together or not at all."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
from pathlib import Path
from types import TracebackType
from typing import Any

from fastsam3d.basics.files import finite
from fastsam3d.basics.paths import user_path
from fastsam3d.errors import UserError


class OutputFolder:
    """Collects files in a hidden folder beside their final place and moves them there in `publish`.

    A context manager: what was not published when it ends is removed, with the folders that it made. What a process
    that was killed left there goes when the next one enters.

    Raises:
        UserError: on entering, if the folder cannot be made or written to.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = user_path(path)
        self.staging = self.path / f"{_partial_prefix()}{os.getpid()}"
        self._made: list[Path] = []

    def __enter__(self) -> OutputFolder:
        try:
            missing = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
            self.path.mkdir(parents=True, exist_ok=True)
            self._made = missing
            remove_leftovers(self.path)
            shutil.rmtree(self.staging, ignore_errors=True)
            self.staging.mkdir()
        except OSError as error:
            self._clean()
            raise UserError(
                f"cannot write to the output folder {self.path} ({error.strerror or error}): "
                "choose another with --output_dir DIR."
            ) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._clean()
        if isinstance(error, UserError) and str(self.staging) in str(error):
            # The hidden folder is nobody's business: the file is called by the name that it would have had.
            raise UserError(str(error).replace(str(self.staging), str(self.path))) from error

    def __truediv__(self, name: str) -> Path:
        """Path at which to write the file that will be called `name`."""
        return self.staging / name

    def write_json(self, name: str, value: Any) -> None:
        """Writes strict JSON: numbers that are not finite become null."""
        (self / name).write_text(json_text(value), encoding="utf-8")

    def keep(self) -> None:
        """Keeps the folder whatever happens, because something in it is worth keeping."""
        self._made = []

    def publish(self) -> list[Path]:
        """Moves everything to its place, replacing files of the same name; returns the paths.

        Raises:
            UserError: a place is taken by a folder, or cannot be written.
        """
        names = sorted(path.name for path in self.staging.iterdir())
        taken = [name for name in names if (self.path / name).is_dir()]
        if taken:
            raise UserError(f"{self.path / taken[0]} is a folder: remove it, or choose another --output_dir.")
        try:
            for name in names:
                os.replace(self.staging / name, self.path / name)
        except OSError as error:
            raise UserError(f"cannot write to {self.path} ({error.strerror or error}).") from None
        self._made = []
        return [self.path / name for name in names]

    def _clean(self) -> None:
        shutil.rmtree(self.staging, ignore_errors=True)
        for folder in self._made:
            try:
                folder.rmdir()
            except OSError:
                break


def remove_leftovers(folder: Path) -> None:
    """Removes hidden folders that processes of this machine which are gone have left in an output folder.

    Nothing else is touched: no link, no folder of another name, of a running process or of another machine.
    """
    name = re.compile(re.escape(_partial_prefix()) + r"([1-9][0-9]*)")
    for path in folder.iterdir():
        found = name.fullmatch(path.name)
        if found and path.is_dir() and not path.is_symlink() and not _may_be_running(int(found[1])):
            shutil.rmtree(path, ignore_errors=True)


def _partial_prefix() -> str:
    # With the machine's name: two that share a folder cannot see each other's processes.
    return f".partial-{re.sub('[^A-Za-z0-9]', '-', platform.node())}-"


def _may_be_running(process: int) -> bool:
    if os.name != "posix":  # elsewhere this question would end the process
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def json_text(value: Any) -> str:
    """Indented strict JSON with a final newline."""
    return json.dumps(finite(value), indent=2, allow_nan=False, ensure_ascii=False) + "\n"
