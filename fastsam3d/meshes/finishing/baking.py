"""Bakes textures: finds the place of each texel on the surface, its colour, and fills the remaining texels."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from fastsam3d.basics.optional import optional_module
from fastsam3d.meshes.finishing.sources import Source
from fastsam3d.meshes.geometry import interpolate, vertex_normals
from fastsam3d.meshes.mesh import Mesh, TexturedMesh
from fastsam3d.meshes.nearest import nearest_on_surface
from fastsam3d.meshes.rasterizer import Fragments, rasterize
from fastsam3d.meshes.splats.gathering import fitted_gathering
from fastsam3d.meshes.texture import EXTRA, GUTTER, PURPOSE, spread, unwrap
from fastsam3d.meshes.turntable import sample_texture

LEAST_COVERED = 0.1
"""Opacity of the Gaussians at a texel below which its colour is taken from its neighbours on the surface."""
NEIGHBOURS = 4
PASSES = 16
"""With a time limit, texels are coloured in so many parts, one after the other. Each part is spread evenly over all
texels, so that what the time does not allow is filled from near neighbours."""
CHUNK = 262_144
"""Texels between two looks at the clock and two steps of the progress."""


@dataclass(frozen=True)
class Texels:
    """The texels that lie on the surface.

    Attributes:
        pixels: flat indices into the picture `[T]`.
        points, normals: fp32 `[T, 3]`; normals unit and outward.
        fragments: the faces of the atlas that they lie in, and where; None for texels that are not of an atlas.
    """

    pixels: np.ndarray
    points: np.ndarray
    normals: np.ndarray
    fragments: Fragments | None = None

    def __len__(self) -> int:
        return len(self.pixels)

    def interpolate(self, values: np.ndarray, faces: np.ndarray) -> np.ndarray:
        """Interpolates values at the vertices of the atlas `[V, C]`; returns `[T, C]`."""
        assert self.fragments is not None
        return self.fragments.interpolate(values, faces)


@dataclass(frozen=True)
class Atlas:
    """An unwrapped mesh.

    Attributes:
        mesh: before it was unwrapped.
        origin: index of the mesh's vertex for each vertex of the atlas.
        faces, uv: of the atlas; uv 0..1 with v downwards.
        size: side of the picture in texels.
    """

    mesh: Mesh
    origin: np.ndarray
    faces: np.ndarray
    uv: np.ndarray
    size: int

    def texels(self) -> Texels:
        """Finds the place on the surface of every texel whose middle lies in a chart."""
        hit = rasterize(self.uv * self.size, np.ones(len(self.uv)), self.faces, self.size, self.size)
        points = hit.interpolate(self.mesh.vertices[self.origin], self.faces)
        normals = hit.interpolate(vertex_normals(self.mesh.vertices, self.mesh.faces)[self.origin], self.faces)
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
        return Texels(hit.pixels, points.astype(np.float32), normals.astype(np.float32), hit)

    def painted(self, texels: Texels, values: np.ndarray) -> np.ndarray:
        """Makes the picture `[S, S, C]` uint8 of the texels' values `[T, C]` 0..1; pads the space between charts."""
        picture = np.full((self.size * self.size, values.shape[1]), np.nan, dtype=np.float32)
        picture[texels.pixels] = values
        shape = (self.size, self.size, values.shape[1])
        padded = spread(picture.reshape(shape), 2 * max(2, round(GUTTER * self.size)))
        return np.rint(np.clip(padded, 0, 1) * 255).astype(np.uint8)

    def textured(self, texture: np.ndarray, material: np.ndarray | None = None) -> TexturedMesh:
        """Returns the mesh with a picture on it."""
        normals = vertex_normals(self.mesh.vertices, self.mesh.faces)[self.origin]
        colors = self.mesh.vertex_colors[self.origin]
        vertices = self.mesh.vertices[self.origin]
        return TexturedMesh(vertices, self.faces, colors, normals, self.uv, texture, material)


def make_atlas(mesh: Mesh, size: int) -> Atlas:
    """Unwraps a mesh, see `texture.unwrap`.

    Raises:
        UserError: it does not fit into the picture, or a missing package.
    """
    origin, faces, uv = unwrap(mesh, size)
    return Atlas(mesh, origin, faces, uv, size)


def colors_of_texels(
    texels: Texels,
    source: Source,
    kind: str,
    device: torch.device,
    deadline: float | None = None,
    step: Callable[[int, int], None] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the values of texels.

    Args:
        texels: their places.
        source: where the colours come from.
        kind: one of `source.kinds`.
        device: computes the colours from Gaussians.
        deadline: time of `time.monotonic`. Texels that are not computed by then count as uncovered. The first part of
            them is always computed.
        step: called with (number of finished texels, number of all).

    Returns:
        (values `[T, C]`, of which the first three columns are the colour; coverage `[T]` 0..1).
    """
    count = len(texels)
    coverage = np.zeros(count, dtype=np.float32)
    paint = _painter(source, kind, device, texels)
    width = source.voxels.values.shape[1] if kind == "voxels" and source.voxels is not None else 3
    values = np.zeros((count, width), dtype=np.float32)
    done, passes = 0, 1 if deadline is None else PASSES
    for number in range(passes):
        rows = np.arange(_reversed(number, passes), count, passes)
        for first in range(0, len(rows), CHUNK):
            if number and deadline is not None and time.monotonic() > deadline:
                return values, coverage
            some = rows[first : first + CHUNK]
            points, normals = texels.points[some], texels.normals[some]
            values[some], coverage[some] = paint(points, normals)
            if source.picture is not None:
                values[some, :3] = source.picture.painted(points, normals, values[some, :3])
            done += len(some)
            if step is not None:
                step(done, count)
    return values, coverage


def _reversed(number: int, count: int) -> int:
    """Reverses the bits of a number below a power of two, so that neighbouring numbers become distant ones."""
    result = 0
    while count > 1:
        result, number, count = 2 * result + number % 2, number // 2, count // 2
    return result


def _painter(
    source: Source, kind: str, device: torch.device, texels: Texels
) -> Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    if kind == "gaussians":
        assert source.splats is not None
        place, facing = (torch.from_numpy(values).to(device) for values in (texels.points, texels.normals))
        gathering = fitted_gathering(source.splats.to(device), place, facing)

        def gather(points: np.ndarray, normals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            place, facing = (torch.from_numpy(values).to(device) for values in (points, normals))
            colors, coverage = gathering.colors(place, facing)
            return colors.cpu().numpy(), coverage.cpu().numpy()

        return gather
    mesh = source.mesh
    if kind == "voxels":
        assert source.voxels is not None
        voxels = source.voxels

        def sample(points: np.ndarray, normals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            del normals
            # At the nearest place of the full surface, where the voxels are: the simplified one can leave their shell.
            chosen, weights = nearest_on_surface(points, mesh.vertices, mesh.faces, PURPOSE, EXTRA)
            return voxels.sample(interpolate(mesh.vertices, mesh.faces, chosen, weights)), np.ones(len(points))

        return sample

    def nearest(points: np.ndarray, normals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        del normals
        chosen, weights = nearest_on_surface(points, mesh.vertices, mesh.faces, PURPOSE, EXTRA)
        if not isinstance(mesh, TexturedMesh):
            return interpolate(mesh.vertex_colors, mesh.faces, chosen, weights), np.ones(len(points))
        uv = interpolate(mesh.uv, mesh.faces, chosen, weights)
        return sample_texture(mesh.texture, uv), np.ones(len(points))

    return nearest


def filled(texels: Texels, values: np.ndarray, coverage: np.ndarray) -> np.ndarray:
    """Gives uncovered texels the mean of the nearest covered ones on the surface, weighted by 1 / distance.

    Neighbours are searched in space and not in the picture, so texels on both sides of a seam have the same neighbours.
    If no texel is covered, all texels become grey.
    """
    known = coverage >= LEAST_COVERED
    if known.all():
        return values
    values = values.copy()
    if not known.any():
        values[:] = 0.5
        return values
    tree = optional_module("scipy.spatial", PURPOSE, EXTRA).cKDTree(texels.points[known])
    count = min(NEIGHBOURS, int(known.sum()))
    distance, near = (each.reshape(-1, count) for each in tree.query(texels.points[~known], k=count))
    weight = 1 / np.maximum(distance, 1e-9)
    weight /= weight.sum(axis=1, keepdims=True)
    values[~known] = (values[known][near] * weight[:, :, None]).sum(axis=1)
    return values
