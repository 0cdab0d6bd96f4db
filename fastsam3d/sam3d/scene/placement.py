"""Checks whether a scene stands where its photo shows it, through the photo's camera and beside the masks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from PIL import Image, ImageFilter

from fastsam3d.basics.pixels import ASSUMED_FIELD_OF_VIEW, as_image, as_mask
from fastsam3d.meshes.geometry import CAMERA_TO_GLTF, vertex_normals
from fastsam3d.meshes.preview import OUTLINE, SUPERSAMPLE, shade
from fastsam3d.meshes.rasterizer import rasterize
from fastsam3d.sam3d.pipeline.reconstruction import Reconstruction

COMPARED_SIDE = 480
"""Longest side, in pixels, at which silhouettes and masks are compared."""
SHEET_WIDTH, SHEET_HEIGHT = 2400, 1600
"""Largest size of a sheet in pixels."""


def to_pixels(points: np.ndarray, width: int, height: int, field_of_view: float) -> tuple[np.ndarray, np.ndarray]:
    """Camera points `[N, 3]` (x left, y up, z forward) to pixels `[N, 2]` (x right, y down) and depths `[N]`.

    Args:
        field_of_view: horizontal, in degrees, of a pinhole camera with square pixels and a central axis.
    """
    focal = width / 2 / math.tan(math.radians(field_of_view) / 2)
    depth = points[:, 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.array([width, height]) / 2 - focal * points[:, :2] / depth[:, None], depth


def silhouettes(items: Sequence[Reconstruction], width: int, height: int, field_of_view: float) -> np.ndarray:
    """Silhouettes of all objects in the camera, the nearer before the farther: bool `[objects, height, width]`."""
    vertices, faces, owners, count = [np.zeros((0, 3))], [np.zeros((0, 3), dtype=np.int64)], [], 0
    for index, item in enumerate(items):
        if item.mesh is None or item.mesh.is_empty:
            continue
        vertices.append(item.pose.apply(torch.tensor(item.mesh.vertices, dtype=torch.float32)).numpy())
        faces.append(item.mesh.faces + count)
        owners.append(np.full(len(item.mesh.faces), index))
        count += len(item.mesh.vertices)
    seen = np.zeros((len(items), height * width), dtype=bool)
    if owners:
        screen, depth = to_pixels(np.concatenate(vertices), width, height, field_of_view)
        hit = rasterize(screen, depth, np.concatenate(faces), width, height)
        seen[np.concatenate(owners)[hit.faces], hit.pixels] = True
    return seen.reshape(len(items), height, width)


def mask_agreement(
    items: Mapping[str, Reconstruction], masks: Mapping[str, np.ndarray], field_of_view: float
) -> dict[str, float]:
    """Measures how well each object, as the camera sees it, covers its mask: intersection over union, by name.

    Both are the visible parts, so that objects in front of others do no harm where they stand right. A low value says
    that shape or place is off, or that the camera's field of view is not the assumed one.
    """
    if not items:
        return {}
    height, width = next(iter(masks.values())).shape
    factor = min(1.0, COMPARED_SIDE / max(height, width))
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    seen = silhouettes(list(items.values()), *size, field_of_view)
    result = {}
    for name, shown in zip(items, seen, strict=True):
        mask = np.asarray(Image.fromarray(as_mask(masks[name], height, width)).resize(size, Image.Resampling.NEAREST))
        union = np.count_nonzero(mask | shown)
        result[name] = float(np.count_nonzero(mask & shown) / union) if union else 0.0
    return result


def placement_sheet(
    image: np.ndarray, items: Sequence[Reconstruction], masks: Sequence[np.ndarray], field_of_view: float
) -> Image.Image:
    """The photo beside itself with the scene drawn over it; in both the masks are outlined.

    Args:
        items: objects at their recovered poses.
        masks: bool `[H, W]` of all objects, also of those that failed.
        field_of_view: horizontal, in degrees; `field_of_view_of` finds it from a point map.
    """
    pixels = as_image(image)
    photo = Image.fromarray(pixels)
    # Made smaller first: at the size of a large photo, outlines take seconds for each mask.
    photo.thumbnail((SHEET_WIDTH // 2, SHEET_HEIGHT))
    rims = _outlines([_reduced(as_mask(mask, *pixels.shape[:2]), photo.size) for mask in masks])
    sheet = Image.new("RGB", (2 * photo.width, photo.height), "white")
    for place, picture in ((0, photo), (photo.width, overlay(np.asarray(photo), items, field_of_view))):
        sheet.paste(picture, (place, 0))
        sheet.paste(OUTLINE, (place, 0), rims)
    return sheet


def _reduced(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Returns a mask at another size (width, height): the pixels that the object touches, however small it is."""
    return np.asarray(Image.fromarray(mask).convert("L").resize(size, Image.Resampling.BOX)) > 0


def _outlines(masks: Sequence[np.ndarray]) -> Image.Image:
    """The rims of masks, thick enough to be seen in the sheet."""
    height, width = masks[0].shape
    reach = 2 * max(1, round(max(height, width) / 700)) + 1
    rims = np.zeros((height, width), dtype=bool)
    for mask in masks:
        solid = Image.fromarray(mask.astype(np.uint8) * 255)
        rims |= np.asarray(solid.filter(ImageFilter.MaxFilter(reach))) != np.asarray(solid)
    return Image.fromarray(rims.astype(np.uint8) * 255)


OVERLAY_SIDE = 1600
"""Longest side, in pixels, at which a scene is drawn; on larger photos it is enlarged."""


def overlay(
    image: np.ndarray,
    reconstructions: Sequence[Reconstruction],
    field_of_view: float = ASSUMED_FIELD_OF_VIEW,
    opacity: float = 0.85,
) -> Image.Image:
    """The reconstructed scene drawn over its photo, every object at its recovered pose.

    Args:
        field_of_view: horizontal, in degrees, of the camera; 60 is what is assumed without a point map, and
            `field_of_view_of` finds it from one.
        opacity: of the objects.

    Returns:
        A picture of the photo's size.
    """
    photo = Image.fromarray(as_image(image))
    shown = [item for item in reconstructions if item.mesh is not None and not item.mesh.is_empty]
    if shown:
        factor = min(SUPERSAMPLE, OVERLAY_SIDE / max(photo.size))
        width, height = (max(1, round(side * factor)) for side in photo.size)
        layer = _scene_layer(shown, width, height, field_of_view, opacity).resize(photo.size, Image.Resampling.BILINEAR)
        photo.paste(layer, (0, 0), layer)
    return photo


def _scene_layer(
    items: Sequence[Reconstruction], width: int, height: int, field_of_view: float, opacity: float
) -> Image.Image:
    """The scene as its camera sees it, RGBA, transparent where nothing is."""
    vertices, faces, colors, count = [], [], [], 0
    for item in items:
        assert item.mesh is not None
        vertices.append(item.pose.apply(torch.tensor(item.mesh.vertices, dtype=torch.float32)).numpy())
        faces.append(item.mesh.faces + count)
        colors.append(item.mesh.vertex_colors)
        count += len(item.mesh.vertices)
    points, triangles, shades = np.concatenate(vertices), np.concatenate(faces), np.concatenate(colors)
    focal = width / 2 / math.tan(math.radians(field_of_view) / 2)
    middle = np.array([width, height]) / 2
    depth = points[:, 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        screen = middle - focal * points[:, :2] / depth[:, None]
    hit = rasterize(screen, depth, triangles, width, height)
    normals = hit.interpolate(vertex_normals(points, triangles), triangles) @ CAMERA_TO_GLTF
    rays = np.stack([middle[0] - hit.pixels % width, hit.pixels // width - middle[1]], axis=1) / focal
    lit = shade(hit.interpolate(shades, triangles), normals, np.column_stack([rays, np.ones(len(rays))]))
    layer = np.zeros((height * width, 4), dtype=np.uint8)
    layer[hit.pixels, :3] = np.rint(np.clip(lit, 0, 1) * 255)
    layer[hit.pixels, 3] = round(255 * opacity)
    return Image.fromarray(layer.reshape(height, width, 4))


def field_of_view_of(pointmap: np.ndarray) -> float:
    """Horizontal field of view, in degrees, of the central pinhole camera that fits a point map best.

    Args:
        pointmap: `[H, W, 3]` in the camera frame, NaN where unknown. Without any point the assumed camera's.
    """
    height, width = pointmap.shape[:2]
    u = np.arange(width) + 0.5 - width / 2
    v = np.arange(height)[:, None] + 0.5 - height / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        x, y = -pointmap[..., 0] / pointmap[..., 2], -pointmap[..., 1] / pointmap[..., 2]
    known = np.isfinite(x) & np.isfinite(y) & (pointmap[..., 2] > 0)
    if not known.any():
        return ASSUMED_FIELD_OF_VIEW
    product = (x * u + y * v)[known].sum()
    focal = product / ((x * x + y * y)[known].sum() + 1e-12)
    return float(2 * math.degrees(math.atan(width / 2 / focal))) if focal > 0 else ASSUMED_FIELD_OF_VIEW
