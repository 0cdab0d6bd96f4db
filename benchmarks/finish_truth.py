"""An object whose colours are known everywhere: a procedural shape with stripes, checks and flat parts on it.

Its surface is splatted to Gaussians and meshed, as a generator would give it; what is finished from these can then be
compared with the truth.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from fastsam3d.evaluation.metrics.signed_distance import distance_of, marching_tetrahedra
from fastsam3d.evaluation.metrics.visual import HALF_SIDE, VIEWS, Renders, welded
from fastsam3d.meshes.geometry import interpolate, sample_surface, vertex_normals
from fastsam3d.meshes.mesh import Mesh, TexturedMesh
from fastsam3d.meshes.rasterizer import Fragments, rasterize
from fastsam3d.meshes.rotations import quaternion_to_matrix
from fastsam3d.meshes.splats.splats import Splats
from fastsam3d.meshes.turntable import sample_texture
from fastsam3d.meshes.viewpoint import view_rotation
from fastsam3d.procedural.objects import make_object

STRIPE = 0.035
"""Width of a stripe and of a check, object units."""
SOFT = 0.012
"""Width of the edges between colours."""
OBLIQUE = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
SUPERSAMPLE = 2
"""Rendered pixels for each side of a pixel, so that the pictures are not compared by their jagged edges."""
PAINTS = np.array([[0.85, 0.25, 0.20], [0.95, 0.90, 0.75], [0.15, 0.35, 0.60], [0.30, 0.65, 0.35]])


@dataclass(frozen=True)
class Truth:
    """The object.

    Attributes:
        mesh: with many faces; the colours at the vertices are the true ones there.
        splats: Gaussians on its surface.
        color: true colours `[P, 3]` at points `[P, 3]`.
    """

    mesh: Mesh
    splats: Splats
    color: Callable[[np.ndarray], np.ndarray]


def painted(points: np.ndarray) -> np.ndarray:
    """The colours: checks on the left, stripes on the right, one flat colour below; soft over `SOFT` at their edges.

    Checks and stripes lie obliquely, so that no flat part of the object runs along an edge of theirs.
    """
    turned = points @ OBLIQUE
    wave = np.sin(np.pi / STRIPE * turned)
    checks, stripes = _soft(wave.prod(axis=1), 0.5), _soft(wave[:, 2], 1.0)
    left = PAINTS[0] + (PAINTS[1] - PAINTS[0]) * checks[:, None]
    right = PAINTS[2] + (PAINTS[1] - PAINTS[2]) * stripes[:, None]
    upper = left + (right - left) * _soft(turned[:, 0], STRIPE / np.pi)[:, None]
    return PAINTS[3] + (upper - PAINTS[3]) * _soft(points[:, 2] + 0.2, STRIPE / np.pi)[:, None]


def is_flat(points: np.ndarray) -> np.ndarray:
    """Which points lie where the colour is the same all around, `[P]`."""
    return points[:, 2] < -0.2 - 3 * SOFT


def _soft(height: np.ndarray, slope: float) -> np.ndarray:
    """A step from 0 to 1 where a wave of the given height, in units of `STRIPE / pi`, goes through 0."""
    return 1 / (1 + np.exp(-np.clip(height / slope * STRIPE / np.pi / (SOFT / 4), -30, 30)))


def make_truth(seed: int = 7, family: str = "mug", faces: int = 300_000, gaussians: int = 300_000) -> Truth:
    """Makes the object with about so many faces and exactly so many Gaussians."""
    shape = make_object(seed, family)
    resolution = 48
    vertices, triangles = welded(*marching_tetrahedra(distance_of(shape), resolution))
    # Faces grow with the square of the resolution.
    resolution = max(16, round(resolution * (faces / max(len(triangles), 1)) ** 0.5))
    vertices, triangles = welded(*marching_tetrahedra(distance_of(shape), resolution))
    vertices = vertices.astype(np.float32)
    mesh = Mesh(vertices, triangles.astype(np.int64), painted(vertices).astype(np.float32))
    return Truth(mesh, splatted(mesh, gaussians), painted)


def splatted(mesh: Mesh, count: int) -> Splats:
    """Flat opaque Gaussians, spread evenly over the surface, as wide as there is room for each."""
    chosen, weights = sample_surface(mesh.vertices, mesh.faces, count, np.random.default_rng(0))
    points = interpolate(mesh.vertices, mesh.faces, chosen, weights)
    normals = interpolate(vertex_normals(mesh.vertices, mesh.faces), mesh.faces, chosen, weights)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    a, b, c = mesh.vertices[mesh.faces].transpose(1, 0, 2)
    side = np.sqrt(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2 / count)
    # The shortest rotation from +z to the normal, turned round where the normal looks down.
    normals = np.where(normals[:, 2:] < 0, -normals, normals)
    quaternion = np.stack([1 + normals[:, 2], -normals[:, 1], normals[:, 0], np.zeros(count)], axis=1)
    deviations = np.tile([0.7 * side, 0.7 * side, 0.15 * side], (count, 1))
    return Splats(
        torch.from_numpy(points.astype(np.float32)),
        quaternion_to_matrix(torch.from_numpy(quaternion.astype(np.float32))).transpose(1, 2).contiguous(),
        torch.from_numpy(deviations.astype(np.float32)),
        torch.full((count,), 0.95),
        torch.from_numpy(painted(points).astype(np.float32)),
    )


def unlit_views(mesh: Mesh, color: Callable[[np.ndarray], np.ndarray] | None = None, size: int = 256) -> Renders:
    """The views of `evaluation.metrics.visual` without light: colours as they are.

    Args:
        mesh: with a texture, or with colours at its vertices.
        color: true colours of surface points; None takes the mesh's own.
        size: side of a view in pixels.
    """

    canvas = size * SUPERSAMPLE

    def shown(hit: Fragments) -> np.ndarray:
        if color is not None:
            return color(hit.interpolate(mesh.vertices, mesh.faces))
        if isinstance(mesh, TexturedMesh):
            return sample_texture(mesh.texture, hit.interpolate(mesh.uv, mesh.faces))
        return hit.interpolate(mesh.vertex_colors, mesh.faces)

    pictures = np.ones((len(VIEWS), canvas * canvas, 3), dtype=np.float32)
    masks = np.zeros((len(VIEWS), canvas * canvas), dtype=bool)
    for index, (azimuth, elevation) in enumerate(VIEWS):
        seen = mesh.vertices @ view_rotation(azimuth, elevation).T
        screen = np.stack([seen[:, 0], -seen[:, 1]], axis=1) * (canvas / 2 / HALF_SIDE) + canvas / 2
        hit = rasterize(screen, 1000.0 - seen[:, 2], mesh.faces, canvas, canvas)
        pictures[index, hit.pixels] = shown(hit)
        masks[index, hit.pixels] = True
    shape = (len(VIEWS), size, SUPERSAMPLE, size, SUPERSAMPLE)
    small = pictures.reshape(*shape, 3).clip(0, 1).mean(axis=(2, 4))
    return Renders(small, masks.reshape(shape).mean(axis=(2, 4)) >= 0.5)
