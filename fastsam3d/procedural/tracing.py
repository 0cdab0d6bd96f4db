"""Sphere tracing of one object, sped up by its own voxel grid of distances."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .objects import ProceduralObject, voxel_centers

GRID = 32
# A nearest-voxel lookup is off by at most half the voxel diagonal, because distances change by at most one per unit.
_LOOKUP_ERROR = 0.5 * 3 ** 0.5 / GRID


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
        """Sample the distance field once."""
        return cls(item, item.sdf(voxel_centers(GRID)).reshape(GRID, GRID, GRID))

    def surface_points(self) -> np.ndarray:
        """Points `[N, 3]` close to the surface: voxel centres near it, moved onto it along the gradient."""
        near = self.grid.abs() < 1.0 / GRID
        gradient = torch.stack(torch.gradient(self.grid, spacing=1.0 / GRID), dim=-1)[near]
        gradient = gradient / gradient.square().sum(1, keepdim=True).sqrt().clamp_min(0.5)
        points = voxel_centers(GRID).reshape(GRID, GRID, GRID, 3)[near]
        return (points - self.grid[near][:, None] * gradient).clamp(-0.5, 0.5).numpy()


def trace(traced: TracedObject, origins: Tensor, directions: Tensor, steps: int = 40) -> Tensor:
    """Distance along each ray to the surface.

    Args:
        origins: `[N, 3]` ray origins in the object frame, outside the object.
        directions: `[N, 3]` unit directions.
        steps: limit for each of the two marches (grid, then exact).

    Returns:
        `[N]`, infinity where the ray misses.
    """
    inverse = 1.0 / torch.where(directions.abs() < 1e-9, torch.full_like(directions, 1e-9), directions)
    low, high = (-0.5 - origins) * inverse, (0.5 - origins) * inverse
    entry = torch.minimum(low, high).amax(1).clamp_min(0)
    leave = torch.maximum(low, high).amin(1)
    result = torch.full((len(origins),), torch.inf)
    active = (entry < leave).nonzero().squeeze(1)
    depth, flat = entry[active] + 1e-4, traced.grid.reshape(-1)
    near_ids, near_depths = [], []
    start, ray, end = origins[active], directions[active], leave[active]
    for _ in range(steps):
        if len(active) == 0:
            break
        position = torch.addcmul(start, ray, depth[:, None])
        cell = ((position + 0.5) * GRID).long().clamp_(0, GRID - 1)
        safe = flat[(cell[:, 0] * GRID + cell[:, 1]) * GRID + cell[:, 2]] - _LOOKUP_ERROR
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
    for _ in range(steps):
        if len(active) == 0:
            break
        distance = sdf(torch.addcmul(start, ray, depth[:, None]))
        hit = distance < 1e-3
        result[active[hit]] = depth[hit] + distance[hit]
        depth = depth + distance
        keep = ~hit & (depth < end)
        active, depth, start, ray, end = active[keep], depth[keep], start[keep], ray[keep], end[keep]
    return result


def normals(item: ProceduralObject, points: Tensor, width: float = 4e-3) -> Tensor:
    """Unit outward normals `[N, 3]` by tetrahedral differences of the signed distance."""
    corners = torch.tensor([[1.0, -1, -1], [-1, -1, 1], [-1, 1, -1], [1, 1, 1]])
    samples = item.compiled.sdf((points[None] + width * corners[:, None]).reshape(-1, 3)).reshape(4, -1)
    gradient = samples.t() @ corners
    return gradient / gradient.square().sum(1, keepdim=True).sqrt().clamp_min(1e-8)
