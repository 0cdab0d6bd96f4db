"""Acceleration techniques, one a file: settings, state, policy, registration.

Every module of this package is imported, and so registers what it holds: a new technique is a new file.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module

from fastsam3d.acceleration.registry import REGISTRY, Technique
from fastsam3d.diffusion.vocabulary import TechniqueConfig


def discover() -> None:
    """Imports every module of the package, in alphabetical order."""
    for module in pkgutil.iter_modules(__path__):
        import_module(f"{__name__}.{module.name}")


discover()

__all__ = ["REGISTRY", "Technique", "TechniqueConfig"]
