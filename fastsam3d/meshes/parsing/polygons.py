"""What the readers of text and list formats share: polygons as triangles, and numbers from text."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

GREY = 0.7
"""Colour of vertices for which a file gives none, sRGB 0..1."""


def grey(count: int) -> np.ndarray:
    """Makes colours for vertices that have none, fp32 `[count, 3]`."""
    return np.full((count, 3), GREY, dtype=np.float32)


def triangles(polygons: Sequence[Sequence[int]]) -> np.ndarray:
    """Divides polygons into fans of triangles around their first corner, int64 `[F, 3]`; two corners give none."""
    found = [(p[0], p[n], p[n + 1]) for p in polygons for n in range(1, len(p) - 1)]
    return np.array(found, dtype=np.int64).reshape(-1, 3)


def fans(corners: np.ndarray) -> np.ndarray:
    """Divides polygons with equally many corners, `[P, N]`, into fans of triangles, int64 `[F, 3]`."""
    count = corners.shape[1] - 1
    parts = [corners[:, [0, n, n + 1]] for n in range(1, count)]
    if not parts:
        return np.zeros((0, 3), dtype=np.int64)
    return np.stack(parts, axis=1).reshape(-1, 3).astype(np.int64)


def numbers_of(text: bytes) -> np.ndarray:
    """Reads the numbers between white space, fp64 `[N]`; `nan` and `inf` are numbers.

    Raises:
        ValueError: something else is among them.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # numpy only warns of text that is no number
        try:
            return np.fromstring(text.decode("ascii"), dtype=np.float64, sep=" ")
        except (DeprecationWarning, ValueError):
            raise ValueError("text stands where numbers are expected") from None
