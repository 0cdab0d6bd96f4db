"""Draws pictures of reconstructions on the CPU: single views, and sheets of views beside the input."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageFilter

from fastsam3d.basics.pixels import as_image, as_mask
from fastsam3d.meshes.geometry import linear_to_srgb, srgb_to_linear, vertex_normals
from fastsam3d.meshes.mesh import Mesh
from fastsam3d.meshes.rasterizer import Fragments, rasterize
from fastsam3d.meshes.viewpoint import camera_of, shown_radius, view_rotation

if TYPE_CHECKING:
    from fastsam3d.meshes.splats.splats import Splats

SUPERSAMPLE = 2
"""Rendered pixels for each side of a pixel of the picture."""
VIEWS = ((30.0, 20.0), (120.0, 20.0), (210.0, 20.0), (300.0, 20.0))
"""Azimuth and elevation, in degrees, of the views of a sheet."""
PLACES = ((2, 0), (3, 0), (2, 1), (3, 1), (0, 2), (1, 2), (2, 2), (3, 2))
"""Column and row of each view in a sheet: the first four beside the input, the others below."""
BACKGROUND_TOP, BACKGROUND_BOTTOM = np.array([250, 251, 252]) / 255, np.array([226, 230, 235]) / 255
OUTLINE = (255, 122, 26)
FADE = 0.72
"""Share of white mixed into the pixels outside the object."""

# Directions to the lights in the viewer's frame (x right, y up, z towards the viewer), with their strength.
LIGHTS = ((np.array([-0.45, 0.65, 0.62]), 0.62), (np.array([0.75, 0.10, 0.65]), 0.22))
SKY, GROUND = 0.42, 0.22
"""Ambient light from above and from below."""


def shade(colors: np.ndarray, normals: np.ndarray, towards: np.ndarray) -> np.ndarray:
    """Shades surface points with soft light.

    Args:
        colors: `[P, 3]` sRGB 0..1.
        normals, towards: `[P, 3]` normals and directions to the viewer, in the viewer's frame; any length.

    Returns:
        `[P, 3]` sRGB 0..1.
    """
    length = np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    normals = normals / length
    # Both sides of a surface are lit, so that an open mesh shows its inside instead of black.
    normals = np.where((normals * towards).sum(axis=1, keepdims=True) < 0, -normals, normals)
    light = GROUND + (SKY - GROUND) * (normals[:, 1:2] * 0.5 + 0.5)
    for direction, strength in LIGHTS:
        wrapped = (normals @ direction / np.linalg.norm(direction) + 0.15) / 1.15
        light = light + strength * np.maximum(wrapped, 0.0)[:, None]
    return linear_to_srgb(srgb_to_linear(colors) * light)


def render_mesh(
    vertices: np.ndarray,
    faces: np.ndarray,
    colors: np.ndarray | Callable[[Fragments], np.ndarray],
    azimuth: float = 30.0,
    elevation: float = 20.0,
    size: int = 320,
    normals: np.ndarray | Callable[[Fragments], np.ndarray] | None = None,
) -> Image.Image:
    """Draws one view of a coloured mesh on a light ground, `size` x `size` pixels; the whole object fits into it.

    Args:
        vertices, faces: `[V, 3]` (z up), `[F, 3]`.
        colors: `[V, 3]` sRGB 0..1, or a function that returns the colours `[P, 3]` of the covered pixels.
        azimuth, elevation: degrees, see `view_rotation`.
        normals: `[V, 3]`, or a function that returns those `[P, 3]` of the covered pixels; default: computed from the
            faces.
    """
    canvas = size * SUPERSAMPLE
    rows = np.linspace(0, 1, canvas)[:, None, None]
    picture = np.broadcast_to(BACKGROUND_TOP * (1 - rows) + BACKGROUND_BOTTOM * rows, (canvas, canvas, 3)).copy()
    if len(faces):
        low, high = vertices.min(axis=0), vertices.max(axis=0)
        centre = (low + high) / 2
        radius = shown_radius(float(np.linalg.norm(vertices - centre, axis=1).max()))
        rotation = view_rotation(azimuth, elevation)
        distance, focal = camera_of(radius, canvas)

        def project(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            view = (points - centre) @ rotation.T
            depth = distance - view[:, 2]
            return np.stack([view[:, 0], -view[:, 1]], axis=1) * (focal / depth)[:, None] + canvas / 2, depth

        _cast_shadow(picture, vertices, faces, float(low[2]), project)
        screen, depth = project(vertices)
        hit = rasterize(screen, depth, faces, canvas, canvas)
        smooth = vertex_normals(vertices, faces) if normals is None else normals
        facing = (smooth(hit) if callable(smooth) else hit.interpolate(smooth, faces)) @ rotation.T
        rays = np.stack([hit.pixels % canvas, hit.pixels // canvas], axis=1) + 0.5 - canvas / 2
        towards = np.stack([-rays[:, 0], rays[:, 1], np.full(len(rays), focal)], axis=1) / focal
        shown = colors(hit) if callable(colors) else hit.interpolate(colors, faces)
        lit = shade(shown, facing, towards)
        lit = lit * _crevices(hit.pixels, hit.depth, canvas, radius)[:, None]
        picture.reshape(-1, 3)[hit.pixels] = lit
    return _to_image(picture).resize((size, size), Image.Resampling.BOX)


def _cast_shadow(picture: np.ndarray, vertices: np.ndarray, faces: np.ndarray, floor: float, project) -> None:
    """Darkens the ground under the object, in place, with a blurred shadow of the mesh flattened onto the ground."""
    canvas = picture.shape[0]
    coarse = canvas // 4
    flat = vertices.copy()
    flat[:, 2] = floor
    screen, depth = project(flat)
    hit = rasterize(screen * (coarse / canvas), depth, faces, coarse, coarse)
    covered = np.zeros(coarse * coarse, dtype=np.uint8)
    covered[hit.pixels] = 255
    mask = Image.fromarray(covered.reshape(coarse, coarse)).filter(ImageFilter.GaussianBlur(coarse * 0.03))
    mask = mask.resize((canvas, canvas), Image.Resampling.BICUBIC)
    picture *= 1 - 0.30 * (np.asarray(mask, dtype=np.float64) / 255)[..., None]


def _crevices(pixels: np.ndarray, depth: np.ndarray, canvas: int, radius: float) -> np.ndarray:
    """Computes factors 0..1 that darken the pixels lying behind their surroundings.

    The depth of each pixel is compared with the blurred depth.
    """
    flat = np.full(canvas * canvas, np.nan, dtype=np.float32)
    flat[pixels] = depth
    image = flat.reshape(canvas, canvas)
    known = np.isfinite(image)
    near = float(depth.min()) if len(depth) else 0.0
    # PIL blurs 8-bit images only, which is fine enough for a hint of shade.
    levels = np.where(known, np.clip((image - near) / (2 * radius), 0, 1), 0)
    span = canvas * 0.02
    total = _blur(levels, span)
    weight = _blur(known.astype(np.float32), span)
    mean = total / np.maximum(weight, 1e-3)
    behind = np.clip(levels - mean, 0, None).reshape(-1)[pixels]
    return 1 - np.minimum(behind * 3.0, 0.35)


def _blur(values: np.ndarray, span: float) -> np.ndarray:
    image = Image.fromarray(np.ascontiguousarray(values, dtype=np.float32) * 255).convert("L")
    return np.asarray(image.filter(ImageFilter.BoxBlur(span)), dtype=np.float32) / 255


def _to_image(picture: np.ndarray) -> Image.Image:
    return Image.fromarray(np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8))


def highlight(image: np.ndarray, mask: np.ndarray, size: int) -> Image.Image:
    """Draws the input with the object outlined and everything else faded, fitted into `size` x `size` pixels."""
    pixels = as_image(image)
    inside = as_mask(mask, *pixels.shape[:2])
    height, width = inside.shape
    factor = size / max(height, width)
    shape = (max(1, round(width * factor)), max(1, round(height * factor)))
    photo = np.asarray(Image.fromarray(pixels).resize(shape, Image.Resampling.LANCZOS), dtype=np.float64)
    cover = Image.fromarray(inside.astype(np.uint8) * 255).resize(shape, Image.Resampling.BILINEAR)
    alpha = np.asarray(cover, dtype=np.float64)[..., None] / 255
    shown = photo * alpha + (photo * (1 - FADE) + 255 * FADE) * (1 - alpha)
    reach = 2 * max(1, size // 320) + 1
    solid = cover.point(lambda v: 255 if v >= 128 else 0)
    ring = np.asarray(solid.filter(ImageFilter.MaxFilter(reach))) != np.asarray(solid)
    shown[ring] = OUTLINE
    sheet = Image.new("RGB", (size, size), tuple(int(c) for c in np.rint(BACKGROUND_TOP * 255)))
    fitted = Image.fromarray(np.rint(shown).astype(np.uint8))
    sheet.paste(fitted, ((size - shape[0]) // 2, (size - shape[1]) // 2))
    return sheet


def preview_sheet(
    image: np.ndarray, mask: np.ndarray, mesh: Mesh | None, tile: int = 320, splats: Splats | None = None
) -> Image.Image:
    """Draws the input with the object marked, beside four views of its mesh, `4 tile` x `2 tile` pixels.

    Gaussians fill one row more below, from the same directions. Without a mesh, they take its place.

    Args:
        image, mask: as given to the pipeline.
        mesh: None where there are only Gaussians.
        tile: side of one view in pixels; the input takes two by two.
        splats: the Gaussians to draw; None for none.
    """
    rows = [] if mesh is None else [_mesh_views(mesh, tile)]
    if splats is not None and len(splats):
        from fastsam3d.meshes.splats.rendering import splat_view  # with PyTorch

        rows.append([Image.fromarray(splat_view(splats, azimuth, elevation, tile)) for azimuth, elevation in VIEWS])
    sheet = Image.new("RGB", (4 * tile, (1 + max(1, len(rows))) * tile), "white")
    sheet.paste(highlight(image, mask, 2 * tile), (0, 0))
    for view, place in zip(itertools.chain(*rows), PLACES, strict=False):
        sheet.paste(view, (place[0] * tile, place[1] * tile))
    return sheet


def _mesh_views(mesh: Mesh, tile: int) -> list[Image.Image]:
    normals = vertex_normals(mesh.vertices, mesh.faces)
    return [
        render_mesh(mesh.vertices, mesh.faces, mesh.vertex_colors, azimuth, elevation, tile, normals=normals)
        for azimuth, elevation in VIEWS
    ]
