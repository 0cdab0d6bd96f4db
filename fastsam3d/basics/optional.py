"""Imports packages that only some outputs need."""

from __future__ import annotations

import importlib
from types import ModuleType

from fastsam3d.errors import UserError


def optional_module(module: str, purpose: str, extra: str) -> ModuleType:
    """Imports an optional module.

    Args:
        module: its import name.
        purpose: the function that needs it, as the subject of a sentence.
        extra: the optional dependencies of fastsam3d that contain it.

    Raises:
        UserError: it is not installed. The message gives the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        package = module.partition(".")[0].replace("_", "-")
        raise UserError(
            f"{purpose} needs the package {package}, which is not installed: pip install 'fastsam3d[{extra}]'."
        ) from None
