"""Voxel samples of many objects at once, on any device: the batched twin of `structured_latent_data.voxel_sample`.

The whole lattice is evaluated where the plain form evaluates the corners of occupied voxels only: on a GPU the dense
form costs less than finding them. Normals are central differences over the lattice.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from fastsam3d.modules.voxels import split_interior
from fastsam3d.procedural.batch import TableBatch
from fastsam3d.training.structured_latent.data import CLIP, DILATION, NEAR, VoxelSample


@dataclass(frozen=True)
class PlacementBatch:
    """Placement of the objects of a batch in the grid.

    Attributes:
        scale: about the centre `[B]`.
        mirrored: in x, bool `[B]`.
        dilation: signed distance, in voxels, below which a voxel is occupied `[B]`.
        noise: added to the distances of voxels, in voxels `[B, R, R, R]`, or None.
    """

    scale: Tensor
    mirrored: Tensor
    dilation: Tensor
    noise: Tensor | None = None

    @classmethod
    def plain(cls, mirrored: Tensor, noise: Tensor | None = None) -> PlacementBatch:
        """Objects as they are, or mirrored."""
        one = torch.ones(len(mirrored), device=mirrored.device)
        return cls(one, mirrored, DILATION * one, noise)

    @classmethod
    def draw(cls, count: int, resolution: int, generator: torch.Generator) -> PlacementBatch:
        """Random placements with the shares of `structured_latent_data.draw_sample`."""
        device = generator.device

        def uniform() -> Tensor:
            return torch.rand(count, generator=generator, device=device)

        scale = torch.where(uniform() < 0.25, 0.5 + 0.5 * uniform(), 1.0)
        kind = uniform()
        ragged = 0.35 * (kind < 0.15).float()
        noise = torch.randn((count, *[resolution] * 3), generator=generator, device=device)
        dilation = torch.where((kind >= 0.15) & (kind < 0.25), 1.2, DILATION)
        return cls(scale, uniform() < 0.5, dilation, ragged[:, None, None, None] * noise)


@torch.no_grad()
def voxel_samples(tables: TableBatch, resolution: int, placement: PlacementBatch) -> VoxelSample:
    """The objects on the grid, one after the other; column 0 of `coords` and `interior` says which."""
    device, count = tables.matrices.device, len(tables)
    side = 2 * resolution + 1
    axis = torch.arange(side, device=device) / (2.0 * resolution) - 0.5
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).view(1, -1, 3)
    sign = torch.ones(count, 1, 3, device=device)
    sign[..., 0] = torch.where(placement.mirrored, -1.0, 1.0)[:, None]
    scale = placement.scale[:, None]
    distance, color = tables.sdf_and_color(points * sign / scale[..., None])
    distance = distance * scale
    grid = distance.view(count, side, side, side)
    values = grid[:, 1::2, 1::2, 1::2] * resolution
    if placement.noise is not None:
        values = values + placement.noise
    shell, interior = split_interior(torch.nonzero(values < placement.dilation[:, None, None, None]).int())

    cubes = distance * 2 * resolution
    near = cubes.abs() < NEAR
    gradient = torch.stack(torch.gradient(grid, dim=(1, 2, 3)), dim=-1).view(count, -1, 3)
    normals = F.normalize(gradient, dim=-1).masked_fill(~near[..., None], 0.0)
    color = color.masked_fill(~near[..., None], 0.5)

    strides = torch.tensor([side**3, side * side, side, 1], device=device)
    steps = torch.tensor([(x, y, z) for x in range(3) for y in range(3) for z in range(3)], device=device)
    corner = shell.long() * torch.tensor([1, 2, 2, 2], device=device)
    rows = (corner * strides).sum(1, keepdim=True) + (steps * strides[1:]).sum(1)

    def pick(lattice: Tensor) -> Tensor:
        return lattice.flatten(0, 1)[rows]

    return VoxelSample(
        shell, interior, pick(cubes.clamp(-CLIP, CLIP)), pick(color), pick(normals), pick(near)
    )
