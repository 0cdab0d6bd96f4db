"""Rendering of single objects: colour, mask and camera-space points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fastsam3d.procedural.cameras import Camera
from fastsam3d.procedural.shading import Light, shade
from fastsam3d.procedural.tracing import TracedObject, surface_properties, trace


@dataclass(frozen=True)
class Window:
    """A square part of the image plane, in fractions of the full frame; it may reach beyond the frame."""

    left: float
    top: float
    size: float


FULL_FRAME = Window(0.0, 0.0, 1.0)


def crop_window(camera: Camera, surface: np.ndarray, factor: float = 1.2) -> Window:
    """Square window around the object's projected box, `factor` times its longer side."""
    pixels = camera.pixels(surface, 1)
    low, high = pixels.min(0), pixels.max(0)
    size = float((high - low).max() * factor)
    center = (low + high) / 2
    return Window(float(center[0] - size / 2), float(center[1] - size / 2), size)


def pixel_rays(camera: Camera, window: Window, size: int) -> Tensor:
    """Rays through the pixel centres of a window.

    Returns:
        directions `[size * size, 3]` in the camera frame, unit length; rows run from the top left.
    """
    steps = (torch.arange(size) + 0.5) / size * window.size
    x = (1 - 2 * (window.left + steps)) * camera.half_tangent
    y = (1 - 2 * (window.top + steps)) * camera.half_tangent
    grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
    rays = torch.stack([grid_x, grid_y, torch.ones_like(grid_x)], dim=-1).reshape(-1, 3)
    return rays / rays.square().sum(1, keepdim=True).sqrt()


def render_window(
    traced: TracedObject,
    camera: Camera,
    light: Light,
    window: Window = FULL_FRAME,
    size: int = 64,
    steps: int = 40,
) -> tuple[Tensor, Tensor, Tensor]:
    """Renders the object alone.

    Args:
        traced: the object.
        camera: camera with the object's pose.
        light: light in the object frame.
        window: part of the full frame to render.
        size: side of the result in pixels.
        steps: limit of the march, see `trace`.

    Returns:
        rgb float `[size, size, 3]` (0 off the object), mask bool `[size, size]`, camera points float
        `[size, size, 3]` (NaN off the object).
    """
    return render_windows(traced, [(camera, light, window)], size, steps)[0]


def render_windows(
    traced: TracedObject, views: list[tuple[Camera, Light, Window]], size: int, steps: int = 16
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Several views of one object in one march; see `render_window`."""
    origins, directions, camera_rays = [], [], []
    for camera, _, window in views:
        rays = pixel_rays(camera, window, size)
        rotation = torch.as_tensor(camera.rotation, dtype=torch.float32)
        translation = torch.as_tensor(camera.translation, dtype=torch.float32)
        origin = -(rotation @ translation) / camera.scale
        origins.append(origin.expand(len(rays), 3))
        directions.append(rays @ rotation.t())
        camera_rays.append(rays)
    origin, direction = torch.cat(origins), torch.cat(directions)
    depth = trace(traced, origin, direction, steps)
    hit = depth.isfinite()
    points = torch.addcmul(origin[hit], direction[hit], depth[hit][:, None])
    normal, albedo = surface_properties(traced.object, points)
    results, first, count = [], 0, size * size
    for index, (camera, light, _) in enumerate(views):
        mask = hit[index * count : (index + 1) * count]
        end = first + int(mask.sum())
        rgb = torch.zeros(count, 3)
        rgb[mask] = shade(albedo[first:end], normal[first:end], light)
        pointmap = torch.full((count, 3), torch.nan)
        pointmap[mask] = (
            camera_rays[index][mask] * (depth[index * count : (index + 1) * count][mask] * camera.scale)[:, None]
        )
        results.append((rgb.reshape(size, size, 3), mask.reshape(size, size), pointmap.reshape(size, size, 3)))
        first = end
    return results
