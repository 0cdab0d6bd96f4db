"""Sphere tracing of one object, sped up by its own voxel grid of distances."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fastsam3d.procedural.objects import ProceduralObject, voxel_centers

GRID = 32
_GRID_STEPS = 24
_FEW = 300  # a 300th of the rays costs as much time as thousands: they skip to the next phase
HIT, GRAZING = 1.5e-3, 6e-3
# A lookup of the nearest voxel is off by at most half its diagonal: distances change by at most one per unit.
LOOKUP_ERROR = 0.5 * 3**0.5 / GRID


@dataclass
class TracedObject:
    """An object with its sampled distance field.

    Attributes:
        object: the object.
        grid: float `[32, 32, 32]` signed distances at voxel centres.
    """

    object: ProceduralObject
    grid: Tensor

    @classmethod
    def prepare(cls, item: ProceduralObject) -> TracedObject:
        """Samples the distance field once."""
        return cls(item, item.sdf(voxel_centers(GRID)).reshape(GRID, GRID, GRID))

    def surface_points(self) -> np.ndarray:
        """Points `[N, 3]` close to the surface: voxel centres near it, moved onto it along the gradient."""
        near = self.grid.abs() < 1.0 / GRID
        gradient = torch.stack(torch.gradient(self.grid, spacing=1.0 / GRID), dim=-1)[near]
        gradient = gradient / gradient.square().sum(1, keepdim=True).sqrt().clamp_min(0.5)
        points = voxel_centers(GRID).reshape(GRID, GRID, GRID, 3)[near]
        return (points - self.grid[near][:, None] * gradient).clamp(-0.5, 0.5).numpy()


def trace(traced: TracedObject, origins: Tensor, directions: Tensor, steps: int = 16) -> Tensor:
    """Distance along each ray to the surface.

    Args:
        origins: `[N, 3]` ray origins in the object frame, outside the object.
        directions: `[N, 3]` unit directions.
        steps: limit of the exact march. Grazing rays that are still under way count as hits when they are
            within `GRAZING` of the surface.

    Returns:
        `[N]`, infinity where the ray misses.
    """
    inverse = 1.0 / torch.where(directions.abs() < 1e-9, torch.full_like(directions, 1e-9), directions)
    low, high = (-0.5 - origins) * inverse, (0.5 - origins) * inverse
    entry = torch.minimum(low, high).amax(1).clamp_min(0)
    leave = torch.maximum(low, high).amin(1)
    result = torch.full((len(origins),), torch.inf)
    few = len(origins) // _FEW
    active = (entry < leave).nonzero().squeeze(1)
    depth, flat = entry[active] + 1e-4, traced.grid.reshape(-1)
    near_ids, near_depths = [], []
    start, ray, end = origins[active], directions[active], leave[active]
    for _ in range(_GRID_STEPS):
        if len(active) <= few:
            break
        position = torch.addcmul(start, ray, depth[:, None])
        cell = ((position + 0.5) * GRID).long().clamp_(0, GRID - 1)
        safe = flat[(cell[:, 0] * GRID + cell[:, 1]) * GRID + cell[:, 2]] - LOOKUP_ERROR
        close = safe < 0.01
        if close.any():
            near_ids.append(active[close])
            near_depths.append(depth[close])
        depth = depth + safe
        keep = ~close & (depth < end)
        active, depth, start, ray, end = active[keep], depth[keep], start[keep], ray[keep], end[keep]
    if len(active):
        near_ids.append(active)
        near_depths.append(depth)
    if not near_ids:
        return result
    active, depth = torch.cat(near_ids), torch.cat(near_depths)
    start, ray, end = origins[active], directions[active], leave[active]
    sdf = traced.object.compiled.sdf
    for step in range(steps):
        if len(active) == 0:
            break
        distance = sdf(torch.addcmul(start, ray, depth[:, None]))
        last = step == steps - 1 or len(active) < few
        hit = distance < (GRAZING if last else HIT)
        result[active[hit]] = depth[hit] + distance[hit]
        if last:
            break
        depth = depth + distance
        keep = ~hit & (depth < end)
        active, depth, start, ray, end = active[keep], depth[keep], start[keep], ray[keep], end[keep]
    return result


def surface_properties(item: ProceduralObject, points: Tensor, width: float = 4e-3) -> tuple[Tensor, Tensor]:
    """Unit outward normals and colours, each `[N, 3]`, at points `[N, 3]` on the surface.

    Normals are one-sided differences of the signed distance; the evaluation at the points serves both.
    """
    table = item.compiled
    corners = points[None] + width * torch.eye(3)[:, None]
    gradient = table.sdf(corners.reshape(-1, 3)).reshape(3, -1).t()
    distance, color = table.sdf_and_color(points)
    gradient = gradient - distance[:, None]
    return gradient / gradient.square().sum(1, keepdim=True).sqrt().clamp_min(1e-8), color
