"""Says which Python to use where the one that runs lacks dependencies. It imports only the standard library."""

from __future__ import annotations

import sys
from pathlib import Path

REQUIRED = ("torch", "numpy", "einops", "hydra", "omegaconf", "trimesh", "safetensors", "PIL", "tqdm")
"""Import names of the dependencies in pyproject.toml."""
LOWEST = (3, 10)
ENVIRONMENT = ".venv"
"""Folder at the top of the source tree that `make` installs into."""


def wrong_python(error: ModuleNotFoundError) -> str | None:
    """One sentence about a package that this Python lacks, with the Python to use; None for any other import."""
    package = (error.name or "").partition(".")[0]
    if package not in REQUIRED:
        return None
    return f"this Python ({sys.executable}) does not have {package}, which fastsam3d needs. {way_out()}"


def old_python() -> str | None:
    """One sentence where this Python is too old; else None."""
    if sys.version_info >= LOWEST:
        return None
    running = f"{sys.version_info[0]}.{sys.version_info[1]}"
    return f"this Python ({sys.executable}) is {running}, and fastsam3d needs 3.10 or newer. {way_out()}"


def way_out(top: Path | None = None) -> str:
    """The Python of the environment that `make` has made, or how to make one.

    Args:
        top: of the source tree; default: that of this file.
    """
    top = Path(__file__).resolve().parents[2] if top is None else top
    for name in (f"{ENVIRONMENT}/bin/python", f"{ENVIRONMENT}/Scripts/python.exe"):
        python = top / name
        # Not resolved: the Python of an environment is a link to the one that made it.
        if python.is_file() and python.absolute() != Path(sys.executable).absolute():
            return f"Use {_shown(python)} instead."
    if (top / "pyproject.toml").is_file():
        return f"Install it first, in the folder {top}: `make demo`, or `python -m pip install -e .`."
    return "Install it again: python -m pip install --force-reinstall fastsam3d."


def _shown(path: Path) -> str:
    """The path as one types it in the current folder."""
    try:
        return str(path.relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(path)
