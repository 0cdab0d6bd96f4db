"""Exact savings, one a file: the same function computed with less work.

Every module of this package and of its `FOLDERS` is imported when the registry is first read, and so registers the
saving that it holds: a new saving is a new file. `saving.py` is the interface; `sparse` holds savings of networks on
sparse tensors, `between_runs` what is kept from one object to the next, `graphs` what records and replays CUDA graphs.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Iterable
from importlib import import_module

FOLDERS = ("between_runs", "sparse")


def discover() -> None:
    """Imports every module of the package and of its folders."""
    _import_all(__path__, __name__)
    for folder in FOLDERS:
        _import_all([f"{path}/{folder}" for path in __path__], f"{__name__}.{folder}")


def _import_all(paths: Iterable[str], package: str) -> None:
    for module in pkgutil.iter_modules(paths):
        import_module(f"{package}.{module.name}")
