"""Solids from triangle meshes by signed ray crossings.

A ray runs through the centres of every column of voxels; each face that it meets changes the winding number
by the sign of the face's orientation, and voxels of positive winding number are solid. Overlapping closed
components thus unite and cavities stay empty, both of which plain parity gets wrong or right only by luck.
The rays are cast along all three axes and vote; a ray that leaves the mesh with a winding number other than
zero has passed a hole in the surface and does not vote.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastsam3d.evaluation.metrics.surfaces import as_array

RESOLUTION = 64


def voxel_centres(resolution: int = RESOLUTION) -> np.ndarray:
    """Centres of the voxels of the cube [-0.5, 0.5]^3: [R, R, R, 3] float32, (i + 0.5) / R - 0.5."""
    line = ((np.arange(resolution) + 0.5) / resolution - 0.5).astype(np.float32)
    return np.stack(np.meshgrid(line, line, line, indexing="ij"), axis=-1)


def voxelize_mesh(vertices: Any, faces: Any, resolution: int = RESOLUTION) -> np.ndarray:
    """Solid occupancy [R, R, R] (bool, indices x, y, z) of a mesh in the object frame, cube [-0.5, 0.5]^3.

    A mesh wound inside out is turned round first. Parts outside the cube are cut off.
    """
    # In grid units voxel centres are integers.
    vertices = (as_array(vertices).reshape(-1, 3) + 0.5) * resolution - 0.5
    faces = as_array(faces, np.int64).reshape(-1, 3)
    triangles = vertices[faces]
    triangles = triangles[np.isfinite(triangles).all((1, 2))]
    if len(triangles) == 0:
        return np.zeros((resolution,) * 3, dtype=bool)
    # Six times the signed volume, from the middle of the mesh so that a hole in it hardly counts.
    arms = triangles - triangles.mean((0, 1))
    if np.einsum("fi,fi->", arms[:, 0], np.cross(arms[:, 1], arms[:, 2])) < 0:
        triangles = triangles[:, ::-1]
    inside = np.zeros((resolution,) * 3, dtype=np.int8)
    voters = np.zeros((resolution,) * 3, dtype=np.int8)
    for axis in range(3):
        order = [(axis + 1) % 3, (axis + 2) % 3, axis]  # a cyclic permutation keeps the orientation
        winding, closed = _winding_numbers(triangles[:, :, order], resolution)
        solid = np.logical_and(winding > 0, closed[..., None])
        back = np.argsort(order)
        inside += solid.transpose(back)
        voters += np.broadcast_to(closed[..., None], solid.shape).transpose(back)
    return 2 * inside > voters


def _winding_numbers(triangles: np.ndarray, resolution: int) -> tuple[np.ndarray, np.ndarray]:
    """Winding number of every voxel centre along rays in +z, and the rays that end at zero, as they should.

    triangles: [F, 3, 3] in grid units. Returns [R, R, R] int32 and [R, R] bool.
    """
    face, columns = _covered_columns(triangles, resolution)
    corner = triangles[face]
    sides, areas = [], []
    for i in range(3):
        side, area = _side_of_edge(corner[:, (i + 1) % 3, :2], corner[:, (i + 2) % 3, :2], columns)
        sides.append(side)
        areas.append(area)
    hit = (sides[0] == sides[1]) & (sides[1] == sides[2])
    weights = np.stack(areas, axis=1)[hit]
    total = weights.sum(1)
    height = np.einsum("fi,fi->f", weights, corner[hit, :, 2]) / np.where(total == 0, 1, total)
    # A face seen edge-on has no area; any height between its corners is as good as another.
    height = np.clip(height, corner[hit, :, 2].min(1), corner[hit, :, 2].max(1))
    first = np.clip(np.floor(height) + 1, 0, resolution).astype(np.int64)  # first centre strictly above the crossing
    x, y = columns[hit].astype(np.int64).T
    change = np.zeros((resolution, resolution, resolution + 1), dtype=np.int32)
    # Orientation +1 is a face that looks up: going up one leaves the solid there.
    np.add.at(change, (x, y, first), -sides[0][hit])
    winding = np.cumsum(change, axis=2)
    return winding[..., :resolution], winding[..., resolution] == 0


def _covered_columns(triangles: np.ndarray, resolution: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of face index [K] and integer column [K, 2] inside the face's bounding rectangle."""
    low = np.clip(np.ceil(triangles[:, :, :2].min(1)), 0, resolution).astype(np.int64)
    high = np.clip(np.floor(triangles[:, :, :2].max(1)), -1, resolution - 1).astype(np.int64)
    extent = np.maximum(high - low + 1, 0)
    count = extent.prod(1)
    face = np.repeat(np.arange(len(triangles)), count)
    place = np.arange(len(face)) - np.repeat(np.cumsum(count) - count, count)
    columns = low[face] + np.stack([place // np.maximum(extent[face, 1], 1), place % np.maximum(extent[face, 1], 1)], 1)
    return face, columns.astype(np.float64)


def _side_of_edge(start: np.ndarray, end: np.ndarray, point: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """On which side (+1 left, -1 right) of the directed edge each point lies, and twice the signed area.

    The edge is evaluated from its smaller to its larger end whatever its direction, so the two faces that
    share it round alike, and a point exactly on it is moved symbolically by (e, e^2): a ray never meets two
    neighbours or none.
    """
    swap = (start[:, 0] > end[:, 0]) | ((start[:, 0] == end[:, 0]) & (start[:, 1] > end[:, 1]))
    a, b = np.where(swap[:, None], end, start), np.where(swap[:, None], start, end)
    direction = b - a
    offset = point - a
    area = direction[:, 0] * offset[:, 1] - direction[:, 1] * offset[:, 0]
    tie = np.where(direction[:, 1] != 0, -np.sign(direction[:, 1]), np.sign(direction[:, 0]))
    side = np.where(area != 0, np.sign(area), tie)
    flip = np.where(swap, -1, 1)
    return (side * flip).astype(np.int32), area * flip
