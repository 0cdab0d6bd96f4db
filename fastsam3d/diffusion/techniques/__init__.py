"""Approximate techniques, one a file: settings, state, policy, registration.

Every module of this package and of its folders is imported when the registry is first read, and so registers what it
holds: a new technique is a new file. `rivals` holds methods that other people published, `released` Fast-SAM3D as its
authors released it.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Iterable
from importlib import import_module

FOLDERS = ("rivals", "released")


def discover() -> None:
    """Imports every module of the package and of its folders, in alphabetical order."""
    _import_all(__path__, __name__)
    for folder in FOLDERS:
        _import_all([f"{path}/{folder}" for path in __path__], f"{__name__}.{folder}")


def _import_all(paths: Iterable[str], package: str) -> None:
    for module in pkgutil.iter_modules(paths):
        import_module(f"{package}.{module.name}")
