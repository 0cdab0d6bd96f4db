"""Small shapes with known answers, shared by the tests of this folder."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CUBE_FACES = np.array(
    [
        [0, 2, 1], [1, 2, 3], [4, 5, 6], [5, 7, 6], [0, 1, 4], [1, 5, 4],
        [2, 6, 3], [3, 6, 7], [0, 4, 2], [2, 4, 6], [1, 3, 5], [3, 7, 5],
    ]
)  # fmt: skip


def box_mesh(low, high) -> tuple[np.ndarray, np.ndarray]:
    """A closed box, wound outwards."""
    bounds = np.array([low, high], dtype=float)
    corners = np.array([[bounds[i & 1, 0], bounds[(i >> 1) & 1, 1], bounds[i >> 2, 2]] for i in range(8)])
    return corners, CUBE_FACES.copy()


def joined(*meshes) -> tuple[np.ndarray, np.ndarray]:
    """Several meshes in one, nothing welded."""
    offsets = np.cumsum([0] + [len(vertices) for vertices, _ in meshes])
    return (
        np.concatenate([vertices for vertices, _ in meshes]),
        np.concatenate([faces + offset for (_, faces), offset in zip(meshes, offsets[:-1], strict=True)]),
    )


@dataclass
class Pose:
    rotation: tuple = (1.0, 0.0, 0.0, 0.0)
    translation: tuple = (0.0, 0.0, 0.0)
    scale: tuple = (1.0, 1.0, 1.0)


class Ball:
    """A ball about the origin with the interface of a procedural object."""

    family, symmetry = "ball", "continuous_z"

    def __init__(self, radius: float = 0.4, seed: int = 3) -> None:
        self.radius, self.seed = radius, seed

    def sdf(self, points):
        return np.linalg.norm(points, axis=-1) - self.radius


class Box:
    """An axis-aligned box about the origin."""

    family, symmetry, seed = "box", "none", 5

    def __init__(self, half=(0.4, 0.3, 0.2)) -> None:
        self.half = np.asarray(half)

    def sdf(self, points):
        q = np.abs(np.asarray(points)) - self.half
        return np.linalg.norm(np.maximum(q, 0), axis=-1) + np.minimum(q.max(-1), 0)
