"""Frames, normals, colours and surface samples of triangle meshes, in numpy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Z_UP_TO_Y_UP = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
"""Object frame (z up) to glTF's (y up), applied to row vectors: `(x, y, z) -> (x, z, -y)`."""
CAMERA_TO_GLTF = np.diag([-1.0, 1.0, -1.0])
"""Camera frame (x left, y up, z forward) to glTF's (x right, y up, z backward), applied to row vectors."""


def srgb_to_linear(colors: np.ndarray) -> np.ndarray:
    """Pixel values 0..1 to linear light 0..1 (IEC 61966-2-1)."""
    colors = np.clip(colors, 0.0, 1.0)
    return np.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(colors: np.ndarray) -> np.ndarray:
    """Linear light 0..1 to pixel values 0..1; inverse of `srgb_to_linear`."""
    colors = np.clip(colors, 0.0, 1.0)
    return np.where(colors <= 0.0031308, colors * 12.92, 1.055 * colors ** (1 / 2.4) - 0.055)


def face_cross_products(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Normals of the faces with the length of twice their area, `[F, 3]` fp64."""
    a, b, c = np.asarray(vertices, dtype=np.float64)[faces].transpose(1, 0, 2)
    return np.cross(b - a, c - a)


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Unit normals `[V, 3]` fp32, faces weighted by area; (0, 0, 1) for vertices of no face."""
    cross = face_cross_products(vertices, faces)
    index, count = faces.reshape(-1), len(vertices)
    sums = np.stack([np.bincount(index, np.repeat(cross[:, axis], 3), minlength=count) for axis in range(3)], axis=1)
    length = np.linalg.norm(sums, axis=1, keepdims=True)
    return np.where(length > 1e-20, sums / np.maximum(length, 1e-20), [0.0, 0.0, 1.0]).astype(np.float32)


def sample_surface(
    vertices: np.ndarray, faces: np.ndarray, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Points spread evenly over a surface.

    Returns:
        (faces `[count]`, barycentric weights `[count, 3]`): the points are `(vertices[faces] * weights).sum`,
        and every attribute of the vertices is interpolated alike. Points are stratified along the faces'
        total area.
    """
    area = np.linalg.norm(face_cross_products(vertices, faces), axis=1)
    edges = np.cumsum(area)
    chosen = np.searchsorted(edges, (np.arange(count) + rng.random(count)) / count * edges[-1], side="right")
    u, v = rng.random(count), rng.random(count)
    root = np.sqrt(u)
    weights = np.stack([1 - root, root * (1 - v), root * v], axis=1)
    return np.minimum(chosen, len(faces) - 1), weights


def interpolate(values: np.ndarray, faces: np.ndarray, chosen: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Vertex attribute `[V, C]` at the samples of `sample_surface`."""
    return (values[faces[chosen]] * weights[..., None]).sum(axis=1)


def matrix_to_quaternion_xyzw(matrix: np.ndarray) -> np.ndarray:
    """Unit quaternion (x, y, z, w), glTF's order, of a rotation matrix that acts on columns."""
    import torch

    from fastsam3d.meshes.rotations import matrix_to_quaternion

    w, x, y, z = matrix_to_quaternion(torch.as_tensor(np.ascontiguousarray(matrix), dtype=torch.float64)).tolist()
    return np.array([x, y, z, w])


def quaternion_xyzw_to_matrix(quaternion: Sequence[float]) -> np.ndarray:
    """Rotation `[3, 3]` of a quaternion (x, y, z, w), acting on columns; inverse of `matrix_to_quaternion_xyzw`."""
    import torch

    from fastsam3d.meshes.rotations import quaternion_to_matrix

    x, y, z, w = quaternion
    return quaternion_to_matrix(torch.tensor([w, x, y, z], dtype=torch.float64)).numpy()
