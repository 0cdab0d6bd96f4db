"""Readers that take more than a path, with the rest filled in."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fastsam3d.jobs.pictures import load_numbers


def read_array(path: Path) -> np.ndarray:
    """Reads an array as masks and point maps are read."""
    return load_numbers(path, "the array")
