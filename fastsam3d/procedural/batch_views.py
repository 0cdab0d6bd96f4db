"""Views of many objects at once, on any device: cameras, sphere tracing and shading of a `TableBatch`.

The twin of `cameras.sample_camera`, `tracing.trace` and `render.render_windows` for batches. Rays keep their places
in dense arrays, where the march of single objects drops those that are done: on a GPU a uniform launch costs less than
the bookkeeping.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from fastsam3d.procedural.batch import TableBatch
from fastsam3d.procedural.objects import voxel_centers
from fastsam3d.procedural.shading import shade_with
from fastsam3d.procedural.tracing import GRAZING, GRID, HIT, LOOKUP_ERROR

_GRID_STEPS, _STEPS = 24, 18
_CROP_FACTOR = 1.2


@dataclass(frozen=True)
class CameraBatch:
    """V cameras for each of B objects, see `fastsam3d.procedural.cameras.Camera`.

    Attributes:
        rotation `[B, V, 3, 3]`, translation `[B, V, 3]`, scale and half_tangent `[B, V]`.
        window: crop around the object `[B, V, 3]`: left, top and size as fractions of the full frame.
    """

    rotation: Tensor
    translation: Tensor
    scale: Tensor
    half_tangent: Tensor
    window: Tensor

    def tangents(self, points: Tensor) -> Tensor:
        """Object points `[B, N, 3]` in tangent coordinates (left, up) of each camera `[B, V, N, 2]`."""
        camera = (points[:, None] * self.scale[..., None, None]) @ self.rotation + self.translation.unsqueeze(2)
        return camera[..., :2] / camera[..., 2:]


def grid_distances(tables: TableBatch) -> Tensor:
    """Signed distances at the voxel centres of a 32^3 grid `[B, 32, 32, 32]`."""
    points = voxel_centers(GRID).to(tables.matrices.device)
    return tables.sdf(points.expand(len(tables), -1, 3)).view(-1, GRID, GRID, GRID)


def sample_cameras(grid: Tensor, views: int, generator: torch.Generator) -> CameraBatch:
    """Random views with the distribution of `cameras.sample_camera`.

    Args:
        grid: `grid_distances` of the objects.
        views: cameras an object.
        generator: on the grid's device.
    """
    batch, device = len(grid), grid.device

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(batch, views, *shape, generator=generator, device=device)

    azimuth, elevation = torch.deg2rad(uniform(-100, 100)), torch.deg2rad(uniform(5, 50))
    roll = torch.deg2rad(3 * torch.randn(batch, views, generator=generator, device=device))
    base = _look_at(azimuth, elevation, roll)
    scale = uniform(math.log(0.3), math.log(3.0)).exp()
    distance = scale * uniform(math.log(1.7), math.log(4.0)).exp()
    fill = uniform(0.35, 0.9)
    place = uniform(-1, 1, 2) * (1 - fill)[..., None]
    points, near = _surface_points(grid)

    def turned(half_tangent: Tensor) -> CameraBatch:
        turn = _turn_to(F.pad(place * half_tangent[..., None], (0, 1), value=1.0))
        ahead = F.pad(distance[..., None], (2, 0))
        translation = (ahead.unsqueeze(2) @ turn).squeeze(2)
        return CameraBatch(base @ turn, translation, scale, half_tangent, torch.zeros_like(translation))

    def box(camera: CameraBatch) -> tuple[Tensor, Tensor]:
        tangents = camera.tangents(points)
        hidden = ~near[:, None, :, None]
        return tangents.masked_fill(hidden, torch.inf).amin(2), tangents.masked_fill(hidden, -torch.inf).amax(2)

    low, high = box(turned(torch.zeros_like(scale)))
    camera = turned(((high - low).amax(-1) / 2 / fill).clamp_max(0.8))
    low, high = box(camera)
    half = torch.maximum(camera.half_tangent, 1.01 * torch.maximum(low.abs(), high.abs()).amax(-1))
    # Pixels run against tangents: x = (1 - tangent / half) / 2.
    first, last = (1 - high / half[..., None]) / 2, (1 - low / half[..., None]) / 2
    size = (last - first).amax(-1, keepdim=True) * _CROP_FACTOR
    window = torch.cat([(first + last) / 2 - size / 2, size], dim=-1)
    return CameraBatch(camera.rotation, camera.translation, scale, half, window)


def _surface_points(grid: Tensor) -> tuple[Tensor, Tensor]:
    """Voxel centres moved onto the surface `[B, 32^3, 3]`, and which of them are near it, as in `TracedObject`."""
    gradient = torch.stack(torch.gradient(grid, spacing=1.0 / GRID, dim=(1, 2, 3)), dim=-1).flatten(1, 3)
    gradient = gradient / gradient.norm(dim=-1, keepdim=True).clamp_min(0.5)
    flat = grid.flatten(1)
    points = (voxel_centers(GRID).to(grid.device) - flat[..., None] * gradient).clamp(-0.5, 0.5)
    return points, flat.abs() < 1.0 / GRID


def _look_at(azimuth: Tensor, elevation: Tensor, roll: Tensor) -> Tensor:
    away = torch.stack(
        [azimuth.sin() * elevation.cos(), -azimuth.cos() * elevation.cos(), elevation.sin()], dim=-1
    )
    forward = -away
    vertical = torch.tensor([0.0, 0.0, 1.0], device=away.device).expand_as(away)
    right = F.normalize(torch.linalg.cross(forward, vertical), dim=-1)
    basis = torch.stack([-right, torch.linalg.cross(right, forward), forward], dim=-1)
    c, s, zero, one = roll.cos(), roll.sin(), torch.zeros_like(roll), torch.ones_like(roll)
    turn = torch.stack([c, s, zero, -s, c, zero, zero, zero, one], dim=-1).unflatten(-1, (3, 3))
    return basis @ turn


def _turn_to(direction: Tensor) -> Tensor:
    """Smallest rotations `[..., 3, 3]` (row vectors) that take (0, 0, 1) to the directions `[..., 3]`."""
    x, y, z = F.normalize(direction, dim=-1).unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, zero, x, zero, zero, y, -x, -y, zero], dim=-1).unflatten(-1, (3, 3))
    square = cross @ cross / (1 + z)[..., None, None]
    return (torch.eye(3, device=x.device) + cross + square).transpose(-1, -2)


def render_crops(
    tables: TableBatch, grid: Tensor, cameras: CameraBatch, generator: torch.Generator, size: int
) -> tuple[Tensor, Tensor]:
    """Renders the crop of every camera under a random light (`shading.sample_light`'s distribution).

    Returns:
        `rgba` uint8 `[B, V, size, size, 4]`, alpha is the mask; `points` float16 `[B, V, size, size, 3]`, the camera
        points relative to the pose, (p - t) / s, NaN off the object.
    """
    batch, views = cameras.scale.shape
    device = grid.device
    rays = _pixel_rays(cameras, size)  # [B, V, size * size, 3]
    direction = (rays @ cameras.rotation.transpose(-1, -2)).flatten(1, 2)
    origin = -(cameras.rotation @ cameras.translation[..., None]).squeeze(-1) / cameras.scale[..., None]
    origin = origin.repeat_interleave(size * size, dim=1)
    depth = trace(tables, grid, origin, direction)
    hit = depth.isfinite()
    rows, kept = _compact(hit)
    start, ray = (values.gather(1, rows[..., None].expand(-1, -1, 3)) for values in (origin, direction))
    points = start + ray * torch.where(kept, depth.gather(1, rows), 0.0)[..., None]
    normal, albedo = _surface_properties(tables, points)
    azimuth = torch.deg2rad(220 * torch.rand(batch, views, generator=generator, device=device) - 110)
    elevation = torch.deg2rad(20 + 55 * torch.rand(batch, views, generator=generator, device=device))
    light = torch.stack(
        [azimuth.sin() * elevation.cos(), -azimuth.cos() * elevation.cos(), elevation.sin()], dim=-1
    )
    ambient = 0.35 + 0.25 * torch.rand(batch, views, generator=generator, device=device)
    view = rows // (size * size)
    color = shade_with(
        albedo, normal, light.gather(1, view[..., None].expand(-1, -1, 3)), ambient.gather(1, view)
    )
    rgba = torch.zeros(batch, views * size * size, 4, dtype=torch.uint8, device=device)
    values = torch.cat([color, torch.ones_like(color[..., :1])], dim=-1).mul(255).add(0.5)
    rgba.scatter_(
        1, rows[..., None].expand(-1, -1, 4), torch.where(kept[..., None], values, 0.0).to(torch.uint8)
    )
    # (p - t) / s with p = ray * depth * s: the camera's distance is cancelled before the rounding to half.
    offset = (cameras.translation / cameras.scale[..., None]).repeat_interleave(size * size, dim=1)
    relative = rays.flatten(1, 2) * depth[..., None] - offset
    relative = torch.where(hit[..., None], relative, torch.nan).half()
    return rgba.view(batch, views, size, size, 4), relative.view(batch, views, size, size, 3)


def _pixel_rays(cameras: CameraBatch, size: int) -> Tensor:
    steps = (torch.arange(size, device=cameras.window.device) + 0.5) / size
    left, top, extent = (values[..., None] for values in cameras.window.unbind(-1))
    half = cameras.half_tangent[..., None]
    x = (1 - 2 * (left + steps * extent)) * half
    y = (1 - 2 * (top + steps * extent)) * half
    x, y = x[..., None, :].expand(-1, -1, size, -1), y[..., None].expand(-1, -1, -1, size)
    return F.normalize(torch.stack([x, y, torch.ones_like(x)], dim=-1).flatten(2, 3), dim=-1)


def _compact(wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Positions `[B, M]` of the wanted entries of each row, M the largest count, and which of them are wanted."""
    most = max(1, int(wanted.sum(1).max()))
    rows = wanted.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :most]
    return rows, wanted.gather(1, rows)


def trace(tables: TableBatch, grid: Tensor, origin: Tensor, direction: Tensor) -> Tensor:
    """Distance along each ray `[B, R]` to the surface, infinite where it misses.

    Args:
        tables, grid: the objects and their `grid_distances`.
        origin, direction: `[B, R, 3]` in the objects' frames, directions of unit length.
    """
    inverse = 1.0 / torch.where(direction.abs() < 1e-9, torch.full_like(direction, 1e-9), direction)
    low, high = (-0.5 - origin) * inverse, (0.5 - origin) * inverse
    depth = torch.minimum(low, high).amax(2).clamp_min(0)
    end = torch.maximum(low, high).amin(2)
    active = depth < end
    depth = depth + 1e-4
    flat = grid.flatten(1)
    near = torch.zeros_like(active)
    for _ in range(_GRID_STEPS):
        cell = ((origin + direction * depth[..., None] + 0.5) * GRID).long().clamp_(0, GRID - 1)
        safe = flat.gather(1, (cell[..., 0] * GRID + cell[..., 1]) * GRID + cell[..., 2]) - LOOKUP_ERROR
        near |= active & (safe < 0.01)
        active = active & ~near & (depth < end)
        depth = torch.where(active, depth + safe, depth)
    near |= active & (depth < end)
    rows, going = _compact(near)
    start, ray = (values.gather(1, rows[..., None].expand(-1, -1, 3)) for values in (origin, direction))
    depth, end = depth.gather(1, rows), end.gather(1, rows)
    found = torch.full_like(depth, torch.inf)
    for step in range(_STEPS):
        distance = tables.sdf(start + ray * depth[..., None])
        hit = going & (distance < (GRAZING if step == _STEPS - 1 else HIT))
        found = torch.where(hit, depth + distance, found)
        going = going & ~hit
        depth = torch.where(going, depth + distance, depth)
        going = going & (depth < end)
    result = torch.full(near.shape, torch.inf, device=depth.device)
    return result.scatter(1, rows, found)


def _surface_properties(tables: TableBatch, points: Tensor, width: float = 4e-3) -> tuple[Tensor, Tensor]:
    distance, color = tables.sdf_and_color(points)
    steps = width * torch.eye(3, device=points.device)
    gradient = torch.stack([tables.sdf(points + step) - distance for step in steps], dim=-1)
    return F.normalize(gradient, dim=-1, eps=1e-8), color
