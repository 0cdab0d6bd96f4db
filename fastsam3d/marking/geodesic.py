"""Distances along paths that shun edges: pure functions on a picture."""

from __future__ import annotations

from typing import Any

import numpy as np

LIGHTNESS_WEIGHT = 0.5
"""Weight of lightness in the strength of an edge; colour has the weight 1. Shadows are edges of lightness alone."""


def geodesic_distance(costs: np.ndarray, sources: np.ndarray, sweeps: int = 3) -> np.ndarray:
    """Computes nearly the cost of the cheapest path from the nearest source to every pixel, by raster-scan sweeps.

    Args:
        costs: `[H, W]`, cost of stepping onto a pixel, positive.
        sources: bool `[H, W]`.
        sweeps: passes in the four directions; each lets paths turn once more.

    Returns:
        fp32 `[H, W]`; infinite everywhere if there is no source.
    """
    distance = np.where(sources, 0.0, np.inf).astype(np.float32)
    for _ in range(sweeps):
        # A pass over all four directions: turning the picture by a quarter makes one routine do for each.
        for turn in range(4):
            turned = np.rot90(distance, turn)
            distance = np.rot90(_sweep_down(turned.copy(), np.rot90(costs, turn)), -turn)
    return np.ascontiguousarray(distance)


def _sweep_down(distance: np.ndarray, costs: np.ndarray) -> np.ndarray:
    diagonal = np.float32(np.sqrt(2))
    for row in range(1, len(distance)):
        above = distance[row - 1]
        cost = costs[row]
        candidate = above + cost
        np.minimum(candidate[1:], above[:-1] + diagonal * cost[1:], out=candidate[1:])
        np.minimum(candidate[:-1], above[1:] + diagonal * cost[:-1], out=candidate[:-1])
        np.minimum(distance[row], candidate, out=distance[row])
    return distance


def rim_of(shape: tuple[int, ...]) -> np.ndarray:
    """Marks the outermost pixels of a picture of shape (H, W), bool `[H, W]`."""
    rim = np.ones(shape, dtype=bool)
    rim[1:-1, 1:-1] = False
    return rim


def edge_costs(cv2: Any, image: np.ndarray) -> np.ndarray:
    """Computes the cost of stepping onto each pixel: small in plain areas and soft shadows, large across edges.

    Args:
        image: uint8 `[H, W, 3]`.

    Returns:
        fp32 `[H, W]`, positive.
    """
    lab = cv2.cvtColor(cv2.bilateralFilter(image, 5, 30, 3), cv2.COLOR_RGB2LAB).astype(np.float32)
    lab[..., 0] *= LIGHTNESS_WEIGHT
    across = sum(cv2.Sobel(lab, cv2.CV_32F, *axis) ** 2 for axis in ((1, 0), (0, 1))).sum(axis=2)
    return (0.05 + across / 144.0).astype(np.float32)
