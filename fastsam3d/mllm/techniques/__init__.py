"""Techniques for language models, one a file: settings, scorer, registration.

Every module of this package is imported when the registry is first read, and so registers what it holds: a new scorer
is a new file.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module


def discover() -> None:
    """Imports every module of the package, in alphabetical order."""
    for module in pkgutil.iter_modules(__path__):
        import_module(f"{__name__}.{module.name}")
