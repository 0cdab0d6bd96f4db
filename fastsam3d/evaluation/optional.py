"""Packages that only measuring needs."""

from __future__ import annotations

import importlib
from types import ModuleType

from fastsam3d.errors import UserError


def require(module: str) -> ModuleType:
    """An optional module; UserError that says how to get it where it is missing."""
    try:
        return importlib.import_module(module)
    except ImportError:
        package = module.partition(".")[0]
        raise UserError(
            f"measuring needs the package {package}, which is not installed: install it with "
            "pip install 'fastsam3d[bench]'"
        ) from None
