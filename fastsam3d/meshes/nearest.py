"""Finds the nearest points of a surface, to transfer colours from one mesh to another."""

from __future__ import annotations

import numpy as np

from fastsam3d.basics.optional import optional_module

CANDIDATES = 8
"""Number of faces that are searched for each point, those with the nearest centroids.

The result is exact where faces are of similar size.
"""
CHUNK = 50_000
"""Points that are searched at a time; bounds the memory."""


def nearest_on_surface(
    points: np.ndarray, vertices: np.ndarray, faces: np.ndarray, purpose: str, extra: str
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the nearest point of a surface for each given point.

    Args:
        points: `[P, 3]`.
        vertices, faces: the surface, `[V, 3]` and `[F, 3]`, at least one face.
        purpose, extra: for the message where SciPy is missing, see `optional_module`.

    Returns:
        (index of the face `[P]`, barycentric weights `[P, 3]`) of each nearest point, for `geometry.interpolate`.

    Raises:
        UserError: SciPy is not installed.
    """
    tree_class = optional_module("scipy.spatial", purpose, extra).cKDTree
    corners = np.asarray(vertices, dtype=np.float64)[faces]
    tree = tree_class(corners.mean(axis=1))
    count = min(CANDIDATES, len(faces))
    chosen, weights = np.empty(len(points), dtype=np.int64), np.empty((len(points), 3))
    for first in range(0, len(points), CHUNK):
        part = np.asarray(points[first : first + CHUNK], dtype=np.float64)
        near = tree.query(part, k=count)[1].reshape(len(part), count)
        rows = np.repeat(part, count, axis=0)
        bary = closest_weights(rows, corners[near.reshape(-1)])
        found = (corners[near.reshape(-1)] * bary[..., None]).sum(axis=1)
        best = ((found - rows) ** 2).sum(axis=1).reshape(len(part), count).argmin(axis=1)
        places = np.arange(len(part))
        chosen[first : first + CHUNK] = near[places, best]
        weights[first : first + CHUNK] = bary.reshape(len(part), count, 3)[places, best]
    return chosen, weights


def closest_weights(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Computes the barycentric weights of the closest point of `triangles[i]` to `points[i]`.

    If the projection of a point lies inside its triangle, it is the closest point; otherwise the closest point lies on
    one of the three edges.

    Args:
        points: `[N, 3]`.
        triangles: corners `[N, 3, 3]`; a triangle without area counts as its three edges.

    Returns:
        Weights `[N, 3]`, not negative; each row has the sum 1.
    """
    a, b, c = triangles.transpose(1, 0, 2)
    normal = np.cross(b - a, c - a)
    square = (normal**2).sum(axis=1)
    safe = np.where(square > 0, square, 1.0)
    areas = [np.cross(c - b, points - b), np.cross(a - c, points - c), np.cross(b - a, points - a)]
    inside = np.stack([(area * normal).sum(axis=1) / safe for area in areas], axis=1)
    valid = (inside >= 0).all(axis=1) & (square > 0)

    best, distance = inside, np.where(valid, -1.0, np.inf)
    for first, second in ((0, 1), (1, 2), (2, 0)):
        start, along = triangles[:, first], triangles[:, second] - triangles[:, first]
        length = (along**2).sum(axis=1)
        share = ((points - start) * along).sum(axis=1) / np.where(length > 0, length, 1.0)
        share = np.clip(share, 0.0, 1.0)
        apart = ((start + share[:, None] * along - points) ** 2).sum(axis=1)
        weights = np.zeros_like(inside)
        weights[:, first], weights[:, second] = 1 - share, share
        better = apart < distance
        best = np.where(better[:, None], weights, best)
        distance = np.where(better, apart, distance)
    best = np.maximum(best, 0.0)
    return best / best.sum(axis=1, keepdims=True)
