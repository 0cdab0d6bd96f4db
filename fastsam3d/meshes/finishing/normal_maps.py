"""Bakes the shape of a fine surface into a picture: normal maps in the tangent space of a simplified mesh.

The frame is that of glTF 2.0 (section 3.7.2.1): the tangent points where u grows, the bitangent where v gets smaller,
`bitangent = cross(normal, tangent) * w`. Tangents are written to the file, so programs do not compute their own.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fastsam3d.meshes.finishing.baking import Atlas, Texels
from fastsam3d.meshes.geometry import interpolate, vertex_normals
from fastsam3d.meshes.mesh import Mesh, TexturedMesh
from fastsam3d.meshes.nearest import nearest_on_surface
from fastsam3d.meshes.texture import EXTRA, PURPOSE

STEEPEST = 0.05
"""Least part along the texel's own normal: normals that point sideways or inward cannot be written."""


def vertex_tangents(vertices: np.ndarray, normals: np.ndarray, uv: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Computes tangents of a mesh whose vertices are doubled along the seams of its picture.

    A vertex takes the mean of its faces' tangents, weighted by area, made perpendicular to its normal.

    Args:
        vertices, normals: `[V, 3]`, normals unit.
        uv: `[V, 2]`, v downwards.
        faces: `[F, 3]`.

    Returns:
        fp32 `[V, 4]`: the unit tangent, and 1 or -1 for the side of the bitangent.
    """
    corners, places = vertices[faces].astype(np.float64), uv[faces].astype(np.float64)
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    (u1, v1), (u2, v2) = (places[:, 1] - places[:, 0]).T, (places[:, 2] - places[:, 0]).T
    turn = np.sign(u1 * v2 - u2 * v1)[:, None]
    area = np.linalg.norm(np.cross(first, second), axis=1, keepdims=True)
    # Solved for the directions in which u alone and -v alone grow; their lengths do not matter.
    along = _unit((first * v2[:, None] - second * v1[:, None]) * turn) * area
    upward = _unit((first * u2[:, None] - second * u1[:, None]) * turn) * area
    tangent, bitangent = _gathered(along, faces, len(vertices)), _gathered(upward, faces, len(vertices))
    tangent -= normals * (tangent * normals).sum(axis=1, keepdims=True)
    lost = np.linalg.norm(tangent, axis=1) < 1e-12
    if lost.any():  # no face of it has an area in the picture: any direction will do
        axis = np.eye(3)[np.abs(normals[lost]).argmin(axis=1)]
        tangent[lost] = np.cross(normals[lost], axis)
    tangent = _unit(tangent)
    side = np.where((np.cross(normals, tangent) * bitangent).sum(axis=1) < 0, -1.0, 1.0)
    return np.concatenate([tangent, side[:, None]], axis=1).astype(np.float32)


def with_normal_map(mesh: TexturedMesh, atlas: Atlas, texels: Texels, full: Mesh) -> TexturedMesh:
    """Gives a mesh a normal map with the shape of the full surface.

    Args:
        mesh: the mesh of the atlas.
        atlas, texels: where the texels lie.
        full: the surface before it was simplified.

    Raises:
        UserError: SciPy is not installed.
    """
    mesh = replace(mesh, tangents=vertex_tangents(mesh.vertices, mesh.normals, mesh.uv, mesh.faces))
    return replace(mesh, normal_map=normal_map(atlas, texels, mesh, fine_normals(texels, full)))


def fine_normals(texels: Texels, full: Mesh) -> np.ndarray:
    """Finds the normals `[T, 3]` of the nearest points of the full surface.

    A nearest point that looks the other way belongs to the other side of a thin wall: the texel's own normal stays.
    """
    chosen, weights = nearest_on_surface(texels.points, full.vertices, full.faces, PURPOSE, EXTRA)
    found = _unit(interpolate(vertex_normals(full.vertices, full.faces), full.faces, chosen, weights))
    same = (found * texels.normals).sum(axis=1, keepdims=True) > 0
    return np.where(same, found, texels.normals)


def normal_map(atlas: Atlas, texels: Texels, mesh: TexturedMesh, normals: np.ndarray) -> np.ndarray:
    """Writes normals into a picture.

    Args:
        atlas: the unwrapped mesh.
        texels: its texels.
        mesh: the mesh of the atlas with normals and tangents at its vertices.
        normals: unit normals of the texels in the object frame `[T, 3]`.

    Returns:
        uint8 `[S, S, 3]`: `(n + 1) / 2` of the normal in tangent space.
    """
    assert mesh.tangents is not None
    tangents = mesh.tangents.astype(np.float64)
    bitangents = np.cross(mesh.normals, tangents[:, :3]) * tangents[:, 3:]
    # The frame of each texel, as programs make it: interpolated, and each axis made unit again.
    axes = [_unit(texels.interpolate(each, atlas.faces)) for each in (tangents[:, :3], bitangents, mesh.normals)]
    inside = np.linalg.solve(np.stack(axes, axis=2), normals[:, :, None])[:, :, 0]
    inside[:, 2] = np.maximum(inside[:, 2], STEEPEST)
    return atlas.painted(texels, _unit(inside) * 0.5 + 0.5)


def _gathered(values: np.ndarray, faces: np.ndarray, count: int) -> np.ndarray:
    index = faces.reshape(-1)
    return np.stack([np.bincount(index, np.repeat(values[:, k], 3), minlength=count) for k in range(3)], axis=1)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-20)
