"""Finds the nearest points of a surface, to transfer colours from one mesh to another."""

from __future__ import annotations

from dataclasses import dataclass

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
    tree, table = tree_class(corners.mean(axis=1)), _FaceTable.of(corners)
    count = min(CANDIDATES, len(faces))
    chosen, weights = np.empty(len(points), dtype=np.int64), np.empty((len(points), 3))
    for first in range(0, len(points), CHUNK):
        part = np.asarray(points[first : first + CHUNK], dtype=np.float64)
        near = tree.query(part, k=count, workers=_threads())[1].reshape(len(part), count)
        best = np.full(len(part), np.inf)
        # One candidate after the other: a column of numbers each, which is much faster than rows of three.
        for face in near.T:
            along, up, distance = table.closest(part, face)
            rows = np.flatnonzero(distance < best)
            best[rows], chosen[first + rows] = distance[rows], face[rows]
            weights[first + rows, 1], weights[first + rows, 2] = along[rows], up[rows]
    weights[:, 0] = np.maximum(1 - weights[:, 1] - weights[:, 2], 0)
    return chosen, weights


def _threads() -> int:
    """As many threads as PyTorch uses, so that a limit for it is one for the search, too."""
    import torch

    return torch.get_num_threads()


@dataclass(frozen=True)
class _FaceTable:
    """What the closest point of a triangle needs that does not depend on the point, one column for each number.

    Attributes:
        corner: the first corner, three columns `[F]`.
        first, second: the edges from it, three columns `[F]` each.
        squares: the products first . first, first . second, second . second, and the square of the third edge.
        inverse: one over the determinant of the products; 0 for a triangle without area.
    """

    corner: tuple[np.ndarray, ...]
    first: tuple[np.ndarray, ...]
    second: tuple[np.ndarray, ...]
    squares: tuple[np.ndarray, ...]
    inverse: np.ndarray

    @classmethod
    def of(cls, corners: np.ndarray) -> _FaceTable:
        """Makes the table of triangles `[F, 3, 3]`."""
        corner, second_corner, third_corner = (np.ascontiguousarray(corners[:, k].T) for k in range(3))
        first, second = second_corner - corner, third_corner - corner
        aa, ab, bb = (first * first).sum(axis=0), (first * second).sum(axis=0), (second * second).sum(axis=0)
        cross = np.cross(first, second, axis=0)
        determinant = (cross * cross).sum(axis=0)  # not aa * bb - ab * ab, of which thin triangles leave nothing
        inverse = np.divide(1.0, determinant, out=np.zeros_like(determinant), where=determinant > 0)
        return cls(tuple(corner), tuple(first), tuple(second), (aa, ab, bb, aa + bb - 2 * ab), inverse)

    def closest(self, points: np.ndarray, face: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Finds the closest point of triangle `face[i]` to `points[i]`; see `closest_weights`, its plain twin.

        Returns:
            (weight of the second corner, weight of the third corner, squared distance), `[P]` each.
        """
        x, y, z = (own - corner[face] for own, corner in zip(points.T, self.corner, strict=True))
        a1, a2, a3 = (column[face] for column in self.first)
        b1, b2, b3 = (column[face] for column in self.second)
        aa, ab, bb, cc = (column[face] for column in self.squares)
        inverse = self.inverse[face]
        pa, pb = x * a1 + y * a2 + z * a3, x * b1 + y * b2 + z * b3
        along, up = (bb * pa - ab * pb) * inverse, (aa * pb - ab * pa) * inverse
        outside = np.flatnonzero((along < 0) | (up < 0) | (along + up > 1) | (inverse == 0))
        # Of a point that lies beside its triangle, the closest of the three edges' points.
        aa, ab, bb, cc, pa, pb = (column[outside] for column in (aa, ab, bb, cc, pa, pb))
        best = np.full(len(outside), np.inf)
        one, other = np.zeros(len(outside)), np.zeros(len(outside))
        for edge, (top, bottom) in enumerate(((pa, aa), (pb, bb), (pb - pa + aa - ab, cc))):
            share = np.clip(top / np.where(bottom > 0, bottom, 1.0), 0.0, 1.0)
            u, v = ((share, 0.0), (0.0, share), (1 - share, share))[edge]
            apart = u * (u * aa - 2 * pa) + v * (v * bb - 2 * pb) + 2 * u * v * ab
            better = apart < best
            best = np.where(better, apart, best)
            one, other = np.where(better, u, one), np.where(better, v, other)
        along[outside], up[outside] = one, other
        x, y, z = x - along * a1 - up * b1, y - along * a2 - up * b2, z - along * a3 - up * b3
        return along, up, x * x + y * y + z * z


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
