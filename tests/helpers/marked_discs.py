"""Discs whose masks are known, for tests of marking."""

from __future__ import annotations

import numpy as np


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """IoU of two masks."""
    return float((a & b).sum() / max((a | b).sum(), 1))


def disc(shape: tuple[int, int], x: float, y: float, radius: float) -> np.ndarray:
    """Mask of a disc; pixel (0, 0) has its centre at (0.5, 0.5)."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return (rows + 0.5 - y) ** 2 + (columns + 0.5 - x) ** 2 < radius**2
