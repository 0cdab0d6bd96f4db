"""Techniques for language models. Each file has the settings, the scorer and the registration of one technique.

Every module of this package is imported when the registry is first read, and registers its technique then. So a new
scorer needs only a new file.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module


def discover() -> None:
    """Imports every module of the package, in alphabetical order."""
    for module in pkgutil.iter_modules(__path__):
        import_module(f"{__name__}.{module.name}")
