"""Finishes results: clean, small, textured, in one file. `fastsam3d.finish` is this module's function."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fastsam3d.basics.devices import check_device
from fastsam3d.errors import UserError
from fastsam3d.meshes.finishing.cleaning import edge_facts, joined, without_loose_pieces
from fastsam3d.meshes.finishing.sources import Source, source_of
from fastsam3d.meshes.geometry import face_cross_products
from fastsam3d.meshes.mesh import Mesh, TexturedMesh
from fastsam3d.meshes.simplification import check_faces, close_surface, collapse_edges, is_watertight
from fastsam3d.meshes.texture import check_size
from fastsam3d.meshes.writing import Preparation, export_mesh

FACES, TEXTURE, LOOSE = 20_000, 1024, 0.01
"""Defaults: number of faces; side of the texture in texels; share of the largest piece's area below which a piece is
dropped."""
SMALL_HOLE = 0.1
"""Holes whose rim is not longer than this share of the diagonal of the mesh's box are closed in any case."""
AHEAD = 4
"""Before holes are closed for the first time, the mesh is reduced to this many times the wanted number of faces: with
fewer faces, small holes would be lost."""
KINDS = ("auto", "gaussians", "voxels", "surface")

Step = Callable[[str, int, int], None]
"""Called with (name of the step, parts of it that are done, parts in all)."""


@dataclass(frozen=True, repr=False)
class Finished:
    """A finished object.

    Attributes:
        mesh: clean, with few faces, and with its colours in a texture (`TexturedMesh`) or at the vertices.
        seconds: wall-clock seconds by step, in the order of the steps.
        facts: what was done: faces and vertices before and after, where the colours come from (`colors`), the share of
            texels that have a colour of their own (`covered`), `watertight`, `open_edges`, `crowded_edges`.
    """

    mesh: Mesh
    seconds: dict[str, float] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<Finished: {len(self.mesh.faces):,} faces, {sum(self.seconds.values()):.1f} s>"

    def save(self, path: str | Path, compress: str = "none") -> Path:
        """Writes the mesh in the format of the path's suffix; an existing file is replaced as a whole.

        Args:
            path: of the file.
            compress: GLB files only: `quantize` writes integers in place of floating point (`KHR_mesh_quantization`),
                `draco` uses Draco's coding (`KHR_draco_mesh_compression`, package DracoPy).

        Raises:
            UserError: an unknown suffix, the path cannot be written, or the file cannot be compressed.
        """
        return export_mesh(self.mesh, path, compress)


def finish(
    result: Any,
    *,
    gaussians: Any = None,
    faces: int | None = FACES,
    texture: int | None = TEXTURE,
    watertight: bool = False,
    loose: float = LOOSE,
    colors: str = "auto",
    normal_map: bool = False,
    device: str | None = None,
    budget: float | None = None,
    step: Step | None = None,
) -> Finished:
    """Makes a clean, small, textured mesh of a pipeline's result.

    Nothing is rendered and nothing is optimised: each texel takes the colour of the Gaussians around its place on the
    surface, or that of the nearest point of the full surface, or of the voxels around it.

    Args:
        result: a `Reconstruction`, the dictionary of SAM 3D Objects or TRELLIS, the mesh of TRELLIS.2, a `Mesh`, or the
            path of a GLB, OBJ or PLY file.
        gaussians: Gaussians of the same object, or a 3DGS PLY file; they replace those of the result.
        faces: number of faces to reduce the mesh to, about; None keeps all.
        texture: side of the texture in texels; None puts the colours at the vertices.
        watertight: close all holes and not only small ones.
        loose: pieces with less than this share of the largest one's area are dropped; 0 keeps all.
        colors: source of the colours: `gaussians`, `voxels`, `surface`, or `auto` for the best one that the result has.
        normal_map: bake the normals of the full surface into a second picture, for a mesh with a texture.
        device: computes the colours from Gaussians, for instance "cuda"; None: the graphics card if there is one.
        budget: seconds after which no further texel is computed; the others are filled from their neighbours. Cleaning
            and unwrapping are never cut short.
        step: called with (name of the step, done, total).

    Raises:
        UserError: nothing to finish, a value out of range, or a missing package; said before any work where possible.
    """
    begin = time.monotonic()
    told: Step = step or _silent
    _check(faces, texture, loose, colors, budget)
    if normal_map and texture is None:
        raise UserError("A normal map needs a texture: give its side in texels, or ask for no normal map.")
    Preparation(faces, watertight, texture).check()
    target = check_device(device or "auto")
    seconds: dict[str, float] = {}
    with _timed(seconds, "read", told):
        source = source_of(result, gaussians)
        kind = _kind(source, colors)
    facts: dict[str, Any] = {"faces_before": len(source.mesh.faces), "colors": kind}
    with _timed(seconds, "clean", told):
        shape = without_loose_pieces(joined(source.mesh), loose)
        if shape.is_empty or not face_cross_products(shape.vertices, shape.faces).any():
            raise UserError("The mesh to finish has no face with an area. Give another result.")
    full = shape
    with _timed(seconds, "simplify", told):
        shape = _simplified(shape, faces, watertight)
    edges = edge_facts(np.unique(shape.vertices, axis=0, return_inverse=True)[1].reshape(-1)[shape.faces])
    facts |= {"faces": len(shape.faces), "vertices": len(shape.vertices), "watertight": is_watertight(shape)}
    facts |= {f"{name}_edges": count for name, count in edges.items()}
    deadline = None if budget is None else begin + budget
    if texture is None:
        mesh = _colored(shape, source, kind, target, deadline, seconds, facts, told)
    else:
        fine = full if normal_map else None
        mesh = _textured(shape, source, kind, texture, target, deadline, seconds, facts, told, fine)
    return Finished(mesh, seconds, facts)


def _simplified(shape: Mesh, faces: int | None, watertight: bool) -> Mesh:
    diagonal = float(np.linalg.norm(shape.vertices.max(axis=0) - shape.vertices.min(axis=0)))
    longest = None if watertight else SMALL_HOLE * diagonal
    # Holes are closed twice: in what is nearly the full surface, and those that the collapses may leave.
    first = shape if faces is None else _collapsed(shape, AHEAD * faces)
    first = close_surface(first, longest)
    return first if faces is None else close_surface(_collapsed(first, faces), longest)


def _collapsed(mesh: Mesh, faces: int) -> Mesh:
    if len(mesh.faces) <= faces:
        return mesh
    vertices, triangles = collapse_edges(mesh.vertices, mesh.faces, faces)
    return Mesh(vertices, triangles, np.full(vertices.shape, 0.7, dtype=np.float32))


def _textured(
    shape: Mesh,
    source: Source,
    kind: str,
    size: int,
    device: Any,
    deadline: float | None,
    seconds: dict[str, float],
    facts: dict[str, Any],
    told: Step,
    full: Mesh | None,
) -> TexturedMesh:
    from fastsam3d.meshes.finishing.baking import LEAST_COVERED, colors_of_texels, filled, make_atlas

    with _timed(seconds, "unwrap", told):
        atlas = make_atlas(shape, size)
    with _timed(seconds, "texels", told):
        texels = atlas.texels()
    with _timed(seconds, "colours", told):
        steps = lambda done, total: told("colours", done, total)  # noqa: E731 - a callback
        values, coverage = colors_of_texels(texels, source, kind, device, deadline, steps)
    facts["covered"] = float((coverage >= LEAST_COVERED).mean()) if len(texels) else 0.0
    with _timed(seconds, "fill", told):
        values = filled(texels, values, coverage)
        picture, material = atlas.painted(texels, values[:, :3]), None
        if kind == "voxels" and source.voxels is not None:
            layout = source.voxels.layout
            picture = atlas.painted(texels, values[:, layout["base_color"]])
            if {"metallic", "roughness"} <= set(layout):
                both = np.concatenate([values[:, layout["metallic"]], values[:, layout["roughness"]]], axis=1)
                material = atlas.painted(texels, both)
    facts["texture"] = size
    mesh = atlas.textured(picture, material)
    if full is None:
        return mesh
    from fastsam3d.meshes.finishing.normal_maps import with_normal_map

    with _timed(seconds, "normal map", told):
        return with_normal_map(mesh, atlas, texels, full)


def _colored(
    shape: Mesh,
    source: Source,
    kind: str,
    device: Any,
    deadline: float | None,
    seconds: dict[str, float],
    facts: dict[str, Any],
    told: Step,
) -> Mesh:
    from fastsam3d.meshes.finishing.baking import LEAST_COVERED, Texels, colors_of_texels, filled
    from fastsam3d.meshes.geometry import vertex_normals

    with _timed(seconds, "colours", told):
        points = Texels(np.arange(len(shape.vertices)), shape.vertices, vertex_normals(shape.vertices, shape.faces))
        values, coverage = colors_of_texels(points, source, kind, device, deadline)
        values = filled(points, values, coverage)
        if kind == "voxels" and source.voxels is not None:
            values = values[:, source.voxels.layout["base_color"]]
    facts["covered"] = float((coverage >= LEAST_COVERED).mean())
    return Mesh(shape.vertices, shape.faces, np.clip(values[:, :3], 0, 1).astype(np.float32))


def _check(faces: int | None, texture: int | None, loose: float, colors: str, budget: float | None) -> None:
    if faces is not None:
        check_faces(faces)
    if texture is not None:
        check_size(texture)
    if not 0 <= loose < 1:
        raise UserError(f"A share of {loose} for loose pieces is not possible: give 0 to keep all, or less than 1.")
    if colors not in KINDS:
        raise UserError(f"Colours cannot come from {colors!r}: choose from {', '.join(KINDS)}.")
    if budget is not None and not budget > 0:
        raise UserError(f"A budget of {budget} seconds is not possible: give more than 0.")


def _kind(source: Source, colors: str) -> str:
    if colors == "auto":
        return source.kinds[0]
    if colors not in source.kinds:
        raise UserError(f"The result has no {colors} to take colours from. It has: {', '.join(source.kinds)}.")
    return colors


@contextmanager
def _timed(seconds: dict[str, float], name: str, told: Step) -> Iterator[None]:
    told(name, 0, 1)
    begin = time.monotonic()
    yield
    seconds[name] = time.monotonic() - begin


def _silent(_name: str, _done: int, _total: int) -> None:
    pass
