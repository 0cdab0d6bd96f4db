"""Exact savings, one a file: the same function computed with less work.

Every module of this package is imported when the registry is first read, and so registers the saving that it holds: a
new saving is a new file. `saving.py` is the interface; `graphs` holds what records and replays CUDA graphs.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module


def discover() -> None:
    """Imports every module of the package."""
    for module in pkgutil.iter_modules(__path__):
        import_module(f"{__name__}.{module.name}")
