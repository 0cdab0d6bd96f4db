"""Small coloured meshes with known volume and colours."""

from __future__ import annotations

import numpy as np
import trimesh

from fastsam3d.meshes.mesh import Mesh


def color_at(points: np.ndarray) -> np.ndarray:
    """A smooth colour field: red grows with x, green with z; blue is a half."""
    return np.stack([0.5 + points[:, 0], 0.5 + points[:, 2], np.full(len(points), 0.5)], axis=1).clip(0, 1)


def ball(subdivisions: int = 4, radius: float = 0.4) -> Mesh:
    """A ball with the colour field."""
    shape = trimesh.creation.icosphere(subdivisions, radius)
    vertices = shape.vertices.astype(np.float32)
    return Mesh(vertices, shape.faces.astype(np.int64), color_at(vertices).astype(np.float32))


def cube(side: float = 0.8) -> Mesh:
    """A cube of twelve faces with the colour field."""
    shape = trimesh.creation.box(extents=(side, side, side))
    vertices = shape.vertices.astype(np.float32)
    return Mesh(vertices, shape.faces.astype(np.int64), color_at(vertices).astype(np.float32))
