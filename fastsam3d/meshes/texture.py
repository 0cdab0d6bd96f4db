"""Bakes the colours of a mesh into a texture: xatlas makes the charts, our rasteriser fills them.

Vertex colours need a program that shows them and as many vertices as there are details; a texture needs neither.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from fastsam3d.basics.optional import optional_module
from fastsam3d.errors import UserError
from fastsam3d.meshes.geometry import interpolate, vertex_normals
from fastsam3d.meshes.mesh import Mesh, TexturedMesh
from fastsam3d.meshes.nearest import nearest_on_surface
from fastsam3d.meshes.rasterizer import rasterize

EXTRA, PURPOSE = "texture", "baking a texture"
SMALLEST, LARGEST = 16, 8192
GUTTER = 1 / 256
"""Distance between charts as a share of the side, so that neighbours in the picture do not bleed into each other."""
PART = 1250
"""Largest number of faces that are unwrapped together: smaller parts are faster, but their charts fill less of the
picture."""


def bake_texture(mesh: Mesh, size: int, detail: Mesh | None = None) -> TexturedMesh:
    """Unwraps a mesh and bakes its colours into a square picture.

    Args:
        mesh: the mesh to unwrap.
        size: side of the picture in texels.
        detail: the mesh to take the colours from, at the nearest points of its surface; default: `mesh` itself. Give
            the mesh before simplification to keep its finer colours.

    Raises:
        UserError: a size out of range, or a missing package.
    """
    check_size(size)
    origin, faces, uv = unwrap(mesh, size)
    vertices = mesh.vertices[origin]
    # One texel is one pixel of a picture whose plane is the unwrapped surface.
    hit = rasterize(uv * size, np.ones(len(uv)), faces, size, size)
    picture = np.full((size * size, 3), np.nan, dtype=np.float32)
    if detail is None or detail is mesh:
        picture[hit.pixels] = hit.interpolate(mesh.vertex_colors[origin], faces)
    else:
        points = hit.interpolate(vertices, faces)
        chosen, weights = nearest_on_surface(points, detail.vertices, detail.faces, PURPOSE, EXTRA)
        picture[hit.pixels] = interpolate(detail.vertex_colors, detail.faces, chosen, weights)
    filled = spread(picture.reshape(size, size, 3), 2 * max(2, round(GUTTER * size)))
    pixels = np.rint(np.clip(filled, 0, 1) * 255).astype(np.uint8)
    normals = vertex_normals(mesh.vertices, mesh.faces)[origin]
    return TexturedMesh(vertices, faces, mesh.vertex_colors[origin], normals, uv, pixels)


def texture_png(mesh: TexturedMesh) -> bytes:
    """Encodes the texture as a PNG file."""
    return picture_png(mesh.texture)


def picture_png(pixels: np.ndarray) -> bytes:
    """Encodes a picture `[S, S, 3]` uint8 as a PNG file."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG", compress_level=6)
    return stream.getvalue()


def material_png(material: np.ndarray) -> bytes:
    """Encodes metallic and roughness `[S, S, 2]` as the PNG file that glTF wants: roughness green, metallic blue."""
    return picture_png(np.stack([np.full_like(material[..., 0], 255), material[..., 1], material[..., 0]], axis=2))


def check_size(size: int) -> None:
    """Checks the side of a texture.

    Raises:
        UserError: it is out of range.
    """
    if not SMALLEST <= size <= LARGEST:
        raise UserError(f"a texture of {size} texels a side is not possible: give {SMALLEST} to {LARGEST}.")


def unwrap(mesh: Mesh, size: int, part: int | None = PART) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unwraps a mesh with xatlas.

    The mesh is cut into compact parts first, and xatlas gets each as a mesh of its own: the time that xatlas takes for
    one mesh grows nearly with the square of its faces, and it works on several meshes side by side. Charts end where
    parts end. All charts are packed into one picture, at one scale.

    Args:
        mesh: at least one face.
        size: side of the picture in texels.
        part: largest number of faces of a part; None gives xatlas the whole mesh, which is the plain way.

    Returns:
        (index of the old vertex for each new one, faces, texture coordinates 0..1 with v downwards). The faces are
        those of the mesh in the same order.

    Raises:
        UserError: it does not fit into one picture, or a missing package.
    """
    xatlas = optional_module("xatlas", PURPOSE, EXTRA)
    atlas = xatlas.Atlas()
    parts = compact_parts(mesh, part or len(mesh.faces))
    used = [np.unique(mesh.faces[rows], return_inverse=True) for rows in parts]
    for vertices, faces in used:
        atlas.add_mesh(mesh.vertices[vertices].astype(np.float32), faces.reshape(-1, 3).astype(np.uint32))
    pack = xatlas.PackOptions()
    pack.resolution = size
    pack.padding = max(2, round(GUTTER * size))
    pack.bilinear = True
    atlas.generate(xatlas.ChartOptions(), pack)
    if atlas.atlas_count != 1:
        raise UserError(
            f"the surface does not fit into one texture of {size} texels a side: give a larger one, or fewer faces."
        )
    origins, uvs, count = [], [], 0
    unwrapped = np.empty_like(mesh.faces)
    for index, (rows, (vertices, _)) in enumerate(zip(parts, used, strict=True)):
        origin, faces, uv = atlas.get_mesh(index)
        unwrapped[rows] = faces.astype(np.int64) + count
        origins.append(vertices[origin])
        uvs.append(uv)
        count += len(origin)
    return np.concatenate(origins), unwrapped, np.clip(np.concatenate(uvs), 0.0, 1.0).astype(np.float32)


def compact_parts(mesh: Mesh, most: int) -> list[np.ndarray]:
    """Cuts a mesh into parts of at most `most` faces: indices of faces, ascending, each face in one part.

    A part that is too large is cut at the median of its faces' middles along its longest side.
    """
    middles = mesh.vertices[mesh.faces].mean(axis=1)
    waiting, parts = [np.arange(len(mesh.faces))], []
    while waiting:
        rows = waiting.pop()
        if len(rows) <= most:
            parts.append(np.sort(rows))
            continue
        own = middles[rows]
        order = rows[np.argsort(own[:, np.ptp(own, axis=0).argmax()], kind="stable")]
        waiting += [order[len(order) // 2 :], order[: len(order) // 2]]
    return parts


def spread(picture: np.ndarray, reach: int) -> np.ndarray:
    """Fills unknown (NaN) texels of `[S, S, 3]`.

    Up to `reach` steps away from known texels they get the mean of their known neighbours, further away the mean of
    all.
    """
    height, width, channels = picture.shape
    known = np.pad(np.isfinite(picture[..., 0]), 1)
    mean = picture[known[1:-1, 1:-1]].mean(axis=0) if known.any() else np.zeros(channels)
    values = np.pad(np.where(known[1:-1, 1:-1, None], picture, 0), ((1, 1), (1, 1), (0, 0))).reshape(-1, channels)
    around = [row * (width + 2) + column for row in (-1, 0, 1) for column in (-1, 0, 1) if (row, column) != (0, 0)]
    for _ in range(reach):
        beside = known.copy()
        beside[:, 1:] |= known[:, :-1]
        beside[:, :-1] |= known[:, 1:]
        wide = beside.copy()
        beside[1:] |= wide[:-1]
        beside[:-1] |= wide[1:]
        fresh = np.flatnonzero((beside[1:-1, 1:-1] & ~known[1:-1, 1:-1]).reshape(-1))
        if not len(fresh):
            break
        # Only the texels at the rim of what is known are computed; of a picture's texels they are few.
        place = (fresh // width + 1) * (width + 2) + fresh % width + 1
        near = [place + step for step in around]
        weights = [known.reshape(-1)[spot].astype(np.float32) for spot in near]
        total = np.sum([values[spot] * weight[:, None] for spot, weight in zip(near, weights, strict=True)], axis=0)
        values[place] = total / np.sum(weights, axis=0)[:, None]
        known.reshape(-1)[place] = True
    result = values.reshape(height + 2, width + 2, channels)[1:-1, 1:-1].copy()
    result[~known[1:-1, 1:-1]] = mean
    return result
