"""Draws objects and scenes from all sides, as a strip and as an animation; needs no display and no graphics driver."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from fastsam3d.basics.files import write_atomically
from fastsam3d.errors import UserError
from fastsam3d.meshes.geometry import smallest_turn, vertex_normals
from fastsam3d.meshes.mesh import Mesh, TexturedMesh
from fastsam3d.meshes.preview import render_mesh
from fastsam3d.meshes.rasterizer import Fragments

if TYPE_CHECKING:
    from fastsam3d.meshes.splats.splats import Splats

VIEWS, FRAMES = 8, 36
ELEVATION = 20.0
TILE = 256
MILLISECONDS = 80


def turntable_frames(
    meshes: Sequence[Mesh], count: int = FRAMES, size: int = TILE, elevation: float = ELEVATION
) -> list[Image.Image]:
    """Draws views from `count` directions, evenly spread and starting at the front.

    Args:
        meshes: meshes in one frame (z up), drawn together.
        size: side of a view in pixels.
        elevation: degrees above the horizon.

    Raises:
        UserError: there is nothing to show.
    """
    whole = _merge(meshes)
    angles = [360.0 * index / count for index in range(count)]
    return [
        render_mesh(whole.vertices, whole.faces, whole.colors_at, angle, elevation, size, normals=whole.normals_at)
        for angle in angles
    ]


def levelled(meshes: Sequence[Mesh], up: np.ndarray | None) -> list[Mesh]:
    """Turns meshes together, by the smallest angle, so that `up` becomes z.

    Args:
        meshes: meshes in one frame.
        up: unit vector `[3]` in that frame. If it is None or points down, the meshes are returned as they are.
    """
    turn = None if up is None else smallest_turn(np.asarray(up, dtype=np.float64), np.array([0.0, 0.0, 1.0]))
    if turn is None:
        return list(meshes)
    turned = []
    for mesh in meshes:
        changes = {"vertices": (mesh.vertices @ turn.T).astype(np.float32)}
        if isinstance(mesh, TexturedMesh):
            changes["normals"] = (mesh.normals @ turn.T).astype(np.float32)
            if mesh.tangents is not None:
                turned_tangents = np.concatenate([mesh.tangents[:, :3] @ turn.T, mesh.tangents[:, 3:]], axis=1)
                changes["tangents"] = turned_tangents.astype(np.float32)
        turned.append(replace(mesh, **changes))
    return turned


def strip(frames: Sequence[Image.Image]) -> Image.Image:
    """Puts views side by side."""
    width, height = frames[0].size
    sheet = Image.new("RGB", (width * len(frames), height))
    for index, frame in enumerate(frames):
        sheet.paste(frame, (index * width, 0))
    return sheet


def splat_frames(
    splats: Splats, count: int = FRAMES, size: int = TILE, elevation: float = ELEVATION
) -> list[Image.Image]:
    """Draws Gaussians from the directions of `turntable_frames`, from so far away that all of their centres fit."""
    from fastsam3d.meshes.splats.rendering import splat_view

    return [Image.fromarray(splat_view(splats, 360.0 * index / count, elevation, size)) for index in range(count)]


def above(upper: Sequence[Image.Image], lower: Sequence[Image.Image]) -> list[Image.Image]:
    """Puts each view of one object above that of another."""
    stacked = []
    for first, second in zip(upper, lower, strict=True):
        sheet = Image.new("RGB", (first.width, first.height + second.height))
        sheet.paste(first, (0, 0))
        sheet.paste(second, (0, first.height))
        stacked.append(sheet)
    return stacked


def write_turntable(
    meshes: Sequence[Mesh],
    folder: str | Path,
    name: str,
    frames: int = FRAMES,
    size: int = TILE,
    splats: Splats | None = None,
) -> list[Path]:
    """Writes `name`_turntable.png, eight views side by side, and `name`_turntable.gif, which turns.

    Each file is written completely or not at all.

    Args:
        meshes: drawn together; none where there are only Gaussians.
        folder: where the files go.
        name: how they begin.
        frames: number of views of the animation.
        size: side of a view in pixels.
        splats: Gaussians, which are drawn above the meshes; None without.

    Raises:
        UserError: there is nothing to show, or the folder cannot be written to.
    """
    if splats is None:
        views = turntable_frames(meshes, frames, size)
    else:
        views = splat_frames(splats, frames, size)
        views = above(views, turntable_frames(meshes, frames, size)) if meshes else views
    still, moving = (Path(folder) / f"{name}_turntable{suffix}" for suffix in (".png", ".gif"))
    shown = min(VIEWS, len(views))
    # One palette for all frames: colours of their own for each would flicker.
    palette = strip(views[:: max(1, len(views) // 6)]).quantize(255, method=Image.Quantize.MEDIANCUT)
    coloured = [view.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG) for view in views]
    sheet, animation = io.BytesIO(), io.BytesIO()
    strip([views[len(views) * index // shown] for index in range(shown)]).save(sheet, "PNG")
    coloured[0].save(animation, "GIF", save_all=True, append_images=coloured[1:], duration=MILLISECONDS, loop=0)
    write_atomically(still, sheet.getvalue())
    write_atomically(moving, animation.getvalue())
    return [still, moving]


@dataclass(frozen=True)
class _Merged:
    """Several meshes as one, with colours at the vertices and the textures of the meshes that have one."""

    vertices: np.ndarray
    faces: np.ndarray
    colors: np.ndarray
    normals: np.ndarray
    textured: list[tuple[int, int, int, TexturedMesh]]
    """(first face, end of its faces, first vertex, mesh) of each textured mesh."""

    def colors_at(self, hit: Fragments) -> np.ndarray:
        """Computes the colours `[P, 3]` of the pixels, from the textures of textured meshes."""
        found = hit.interpolate(self.colors, self.faces)
        for first, last, start, mesh in self.textured:
            own = (hit.faces >= first) & (hit.faces < last)
            corners = mesh.uv[self.faces[hit.faces[own]] - start]
            found[own] = sample_texture(mesh.texture, (corners * hit.weights[own][..., None]).sum(axis=1))
        return found

    def normals_at(self, hit: Fragments) -> np.ndarray:
        """Computes the normals `[P, 3]` of the pixels, from the normal maps of meshes that have one."""
        found = hit.interpolate(self.normals, self.faces)
        for first, last, start, mesh in self.textured:
            if mesh.normal_map is not None and mesh.tangents is not None:
                own = (hit.faces >= first) & (hit.faces < last)
                corners, weights = self.faces[hit.faces[own]] - start, hit.weights[own]
                found[own] = mapped_normals(mesh, corners, weights)
        return found


def mapped_normals(mesh: TexturedMesh, corners: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Reads unit normals from a mesh's normal map, as programs that draw it do.

    Args:
        mesh: with a normal map and tangents.
        corners: vertices of the faces that the points lie in `[P, 3]`.
        weights: barycentric weights `[P, 3]`.
    """
    assert mesh.normal_map is not None and mesh.tangents is not None

    def at(values: np.ndarray) -> np.ndarray:
        return (values[corners] * weights[..., None]).sum(axis=1)

    def unit(vectors: np.ndarray) -> np.ndarray:
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-20)

    inside = 2 * sample_texture(mesh.normal_map, at(mesh.uv)) - 1
    tangents = mesh.tangents.astype(np.float64)
    bitangents = np.cross(mesh.normals, tangents[:, :3]) * tangents[:, 3:]
    axes = [unit(at(each)) for each in (tangents[:, :3], bitangents, mesh.normals)]
    return unit(sum(inside[:, k : k + 1] * axis for k, axis in enumerate(axes)))


def sample_texture(picture: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """Samples a picture bilinearly at positions 0..1 (from the left, from the top). `[P, 2] -> [P, 3]`, 0..1."""
    height, width = picture.shape[:2]
    place = np.clip(uv * [width, height] - 0.5, 0, [width - 1, height - 1])
    low = np.floor(place).astype(np.int64)
    high = np.minimum(low + 1, [width - 1, height - 1])
    share = place - low
    top, bottom = (
        picture[row, low[:, 0]] * (1 - share[:, :1]) + picture[row, high[:, 0]] * share[:, :1]
        for row in (low[:, 1], high[:, 1])
    )
    return (top * (1 - share[:, 1:]) + bottom * share[:, 1:]) / 255


def _merge(meshes: Sequence[Mesh]) -> _Merged:
    shown = [mesh for mesh in meshes if not mesh.is_empty]
    if not shown:
        raise UserError("There are no faces, so there is nothing to show from all sides.")
    starts = np.cumsum([0, *(len(mesh.vertices) for mesh in shown)])
    firsts = np.cumsum([0, *(len(mesh.faces) for mesh in shown)])
    return _Merged(
        np.concatenate([mesh.vertices for mesh in shown]),
        np.concatenate([mesh.faces + start for mesh, start in zip(shown, starts, strict=False)]),
        np.concatenate([mesh.vertex_colors for mesh in shown]),
        np.concatenate([_normals(mesh) for mesh in shown]),
        [
            (int(firsts[k]), int(firsts[k + 1]), int(starts[k]), mesh)
            for k, mesh in enumerate(shown)
            if isinstance(mesh, TexturedMesh)
        ],
    )


def _normals(mesh: Mesh) -> np.ndarray:
    return mesh.normals if isinstance(mesh, TexturedMesh) else vertex_normals(mesh.vertices, mesh.faces)
