"""Converts frames and colours, and computes normals and surface samples of triangle meshes, in numpy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Z_UP_TO_Y_UP = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
"""Turns row vectors from the object frame (z up) to glTF's frame (y up): `(x, y, z) -> (x, z, -y)`."""
CAMERA_TO_GLTF = np.diag([-1.0, 1.0, -1.0])
"""Turns row vectors from the camera frame (x left, y up, z forward) to glTF's (x right, y up, z backward)."""


def srgb_to_linear(colors: np.ndarray) -> np.ndarray:
    """Decodes sRGB pixel values 0..1 to linear light 0..1 (IEC 61966-2-1)."""
    colors = np.clip(colors, 0.0, 1.0)
    return np.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(colors: np.ndarray) -> np.ndarray:
    """Encodes linear light 0..1 as sRGB pixel values 0..1; inverse of `srgb_to_linear`."""
    colors = np.clip(colors, 0.0, 1.0)
    return np.where(colors <= 0.0031308, colors * 12.92, 1.055 * colors ** (1 / 2.4) - 0.055)


def face_cross_products(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Computes a normal for each face, `[F, 3]` fp64; its length is twice the area of the face."""
    a, b, c = np.asarray(vertices, dtype=np.float64)[faces].transpose(1, 0, 2)
    return np.cross(b - a, c - a)


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Computes unit normals of vertices, `[V, 3]` fp32: the mean of their faces' normals, weighted by area.

    A vertex that belongs to no face gets (0, 0, 1).
    """
    cross = face_cross_products(vertices, faces)
    index, count = faces.reshape(-1), len(vertices)
    sums = np.stack([np.bincount(index, np.repeat(cross[:, axis], 3), minlength=count) for axis in range(3)], axis=1)
    length = np.linalg.norm(sums, axis=1, keepdims=True)
    return np.where(length > 1e-20, sums / np.maximum(length, 1e-20), [0.0, 0.0, 1.0]).astype(np.float32)


def sample_surface(
    vertices: np.ndarray, faces: np.ndarray, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Samples points evenly over a surface, stratified along the total area of the faces.

    Returns:
        (index of the face `[count]`, barycentric weights `[count, 3]`) of each point. `interpolate` computes the
        points, and any other attribute of the vertices at them.
    """
    area = np.linalg.norm(face_cross_products(vertices, faces), axis=1)
    edges = np.cumsum(area)
    chosen = np.searchsorted(edges, (np.arange(count) + rng.random(count)) / count * edges[-1], side="right")
    u, v = rng.random(count), rng.random(count)
    root = np.sqrt(u)
    weights = np.stack([1 - root, root * (1 - v), root * v], axis=1)
    return np.minimum(chosen, len(faces) - 1), weights


def interpolate(values: np.ndarray, faces: np.ndarray, chosen: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Interpolates a vertex attribute `[V, C]` at the points of `sample_surface`. Returns `[count, C]`."""
    return (values[faces[chosen]] * weights[..., None]).sum(axis=1)


def smallest_turn(start: np.ndarray, end: np.ndarray) -> np.ndarray | None:
    """Finds the rotation by the smallest angle that takes one unit vector `[3]` to another: `end = R @ start`.

    By Rodrigues' formula, with the cross product of the vectors as the axis. Returns `[3, 3]`, which acts on columns;
    None where the vectors point in opposite directions, because every half turn about a normal of theirs is as small.
    """
    cosine = float(np.dot(start, end))
    if cosine < -0.999:
        return None
    x, y, z = np.cross(start, end)
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.eye(3) + cross + cross @ cross / (1 + cosine)


def matrix_to_quaternion_xyzw(matrix: np.ndarray) -> np.ndarray:
    """Converts a rotation matrix `[3, 3]`, which acts on columns, to a unit quaternion (x, y, z, w), glTF's order."""
    import torch

    from fastsam3d.meshes.rotations import matrix_to_quaternion

    w, x, y, z = matrix_to_quaternion(torch.as_tensor(np.ascontiguousarray(matrix), dtype=torch.float64)).tolist()
    return np.array([x, y, z, w])


def quaternion_xyzw_to_matrix(quaternion: Sequence[float]) -> np.ndarray:
    """Converts a quaternion (x, y, z, w) to a rotation matrix `[3, 3]`; inverse of `matrix_to_quaternion_xyzw`."""
    import torch

    from fastsam3d.meshes.rotations import quaternion_to_matrix

    x, y, z, w = quaternion
    return quaternion_to_matrix(torch.tensor([w, x, y, z], dtype=torch.float64)).numpy()
