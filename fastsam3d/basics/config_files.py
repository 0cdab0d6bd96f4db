"""Finds the configuration files: presets of acceleration, and models."""

from __future__ import annotations

import contextlib
from importlib import resources
from pathlib import Path

from fastsam3d.errors import UserError


def config_directory() -> Path:
    """Returns the folder of the configuration files: of the installed package, or of the source tree.

    Raises:
        UserError: neither holds presets.
    """
    candidates = [
        Path(__file__).resolve().parents[1] / "configs",
        Path(__file__).resolve().parents[2] / "configs",
    ]
    with contextlib.suppress(ModuleNotFoundError, TypeError):
        candidates.insert(0, Path(str(resources.files("fastsam3d.configs"))))
    for folder in candidates:
        if (folder / "acceleration").is_dir():
            return folder
    raise UserError(
        f"no acceleration presets in {', '.join(str(c) for c in candidates)}: install the package again "
        "(pip install --force-reinstall fastsam3d)."
    )


def model_names() -> tuple[str, ...]:
    """Returns the names of the configured models, sorted."""
    return tuple(sorted(path.stem for path in (config_directory() / "model").glob("*.yaml")))


def preset_names(folder: str = "acceleration") -> tuple[str, ...]:
    """Returns the names of the presets that are installed in a folder of `configs`, sorted."""
    return tuple(sorted(path.stem for path in (config_directory() / folder).glob("*.yaml")))
