"""Shapes given by a signed distance: triangles of the zero surface, and points put on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastsam3d.evaluation.metrics.surfaces import as_array

SignedDistance = Callable[[np.ndarray], np.ndarray]
CHUNK = 100_000

# The eight corners of a cube numbered x + 2 y + 4 z, and its six tetrahedra around the diagonal from 0 to 7:
# faces of neighbouring cubes are divided alike, so the surface has no cracks.
_CORNERS = np.array([[i & 1, (i >> 1) & 1, (i >> 2) & 1] for i in range(8)])
_TETRAHEDRA = np.array([[0, 1, 3, 7], [0, 3, 2, 7], [0, 2, 6, 7], [0, 6, 4, 7], [0, 4, 5, 7], [0, 5, 1, 7]])


def distance_of(shape: Any) -> SignedDistance:
    """The signed distance of an object as a function of arrays: points [..., 3] -> [...] float64."""
    import torch

    def distance(points: np.ndarray) -> np.ndarray:
        flat = np.ascontiguousarray(points, dtype=np.float32).reshape(-1, 3)
        # In chunks, because the distances to all primitives of an object are held at once.
        parts = [
            as_array(shape.sdf(torch.from_numpy(flat[start : start + CHUNK]))) for start in range(0, len(flat), CHUNK)
        ]
        return np.concatenate(parts).reshape(points.shape[:-1])

    return distance


def gradient(distance: SignedDistance, points: np.ndarray, step: float = 1e-3) -> np.ndarray:
    """Central differences of the signed distance at points [P, 3]: [P, 3]."""
    offsets = np.concatenate([np.eye(3), -np.eye(3)]) * step
    values = distance(points[None] + offsets[:, None])
    return ((values[:3] - values[3:]) / (2 * step)).T


def project_to_surface(
    distance: SignedDistance, points: np.ndarray, steps: int = 3, reach: float = 0.02
) -> tuple[np.ndarray, np.ndarray]:
    """Moves points to the zero of the signed distance by Newton steps; returns points and normals [P, 3].

    No point goes further than `reach`: where the gradient is useless (inside a crease) the point stays near.
    """
    start, points = points, points.copy()
    for _ in range(steps):
        value, slope = distance(points), gradient(distance, points)
        points -= slope * (value / np.maximum((slope**2).sum(1), 0.25))[:, None]
        shift = points - start
        length = np.linalg.norm(shift, axis=1, keepdims=True)
        points = start + shift * np.minimum(1, reach / np.maximum(length, 1e-12))
    slope = gradient(distance, points)
    return points, slope / np.maximum(np.linalg.norm(slope, axis=1, keepdims=True), 1e-12)


def marching_tetrahedra(
    distance: SignedDistance, resolution: int = 128, block: int = 4
) -> tuple[np.ndarray, np.ndarray]:
    """Triangles, not welded, of the zero surface, wound outwards: vertices [V, 3] and faces [F, 3].

    Blocks of block^3 cubes whose centre lies further from the surface than twice their half diagonal are left
    out: the factor two allows for combinations of primitives whose value is not exactly a distance.
    """
    cells = resolution // block
    line = (np.arange(cells) + 0.5) / cells - 0.5
    centres = np.stack(np.meshgrid(line, line, line, indexing="ij"), -1)
    near = np.abs(distance(centres)) < 3**0.5 * block / resolution
    if not near.any():
        return np.zeros((0, 3)), np.zeros((0, 3), dtype=np.int64)
    cube_corner = _grid(block, 3)
    cubes = (np.argwhere(near)[:, None] * block + cube_corner[None]).reshape(-1, 3)
    needed = np.zeros((resolution + 1,) * 3, dtype=bool)
    for corner in _CORNERS:
        needed[tuple((cubes + corner).T)] = True
    place = np.argwhere(needed)
    values = np.zeros(needed.shape)
    values[needed] = distance(place / resolution - 0.5)
    corner_values = np.stack([values[tuple((cubes + corner).T)] for corner in _CORNERS], axis=1)
    crossed = (corner_values < 0).any(1) & (corner_values >= 0).any(1)
    cubes, corner_values = cubes[crossed], corner_values[crossed]
    triangles = [
        _tetrahedron_triangles(cubes[:, None] + _CORNERS[tetrahedron], corner_values[:, tetrahedron])
        for tetrahedron in _TETRAHEDRA
    ]
    vertices = np.concatenate(triangles).reshape(-1, 3) / resolution - 0.5
    return vertices, np.arange(len(vertices)).reshape(-1, 3)


def _grid(count: int, dimensions: int) -> np.ndarray:
    return np.stack(np.meshgrid(*[np.arange(count)] * dimensions, indexing="ij"), -1).reshape(-1, dimensions)


def _tetrahedron_triangles(corners: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Triangles [T, 3, 3] of the zero set in tetrahedra with corners [K, 4, 3] and values [K, 4]."""
    # Corners in order of value: those inside come first, and only three arrangements are left.
    order = np.argsort(values, axis=1)
    values = np.take_along_axis(values, order, 1)
    corners = np.take_along_axis(corners, order[..., None], 1).astype(np.float64)
    inside = (values < 0).sum(1)

    def crossing(rows: np.ndarray, i: int, j: int) -> np.ndarray:
        a, b = values[rows, i], values[rows, j]
        return corners[rows, i] + (corners[rows, j] - corners[rows, i]) * (a / (a - b))[:, None]

    found = []
    for count, patterns in {
        1: [((0, 1), (0, 2), (0, 3))],
        2: [((0, 2), (0, 3), (1, 3)), ((0, 2), (1, 3), (1, 2))],
        3: [((0, 3), (1, 3), (2, 3))],
    }.items():
        rows = inside == count
        for pattern in patterns:
            triangle = np.stack([crossing(rows, i, j) for i, j in pattern], axis=1)
            normal = np.cross(triangle[:, 1] - triangle[:, 0], triangle[:, 2] - triangle[:, 0])
            outwards = (normal * (corners[rows, 3] - corners[rows, 0])).sum(1)
            found.append(np.where((outwards < 0)[:, None, None], triangle[:, ::-1], triangle))
    return np.concatenate(found)
