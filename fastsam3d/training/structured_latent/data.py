"""Voxel samples of procedural objects: input of the latents' encoder, and target of the decoder.

Everything is read off one lattice of corners with half a voxel's spacing: the corners of the mesh decoder's
cubes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from fastsam3d.modules.flexicubes_tables import CORNERS
from fastsam3d.modules.voxels import split_interior
from fastsam3d.procedural import HELD_OUT_SEED
from fastsam3d.procedural.objects import ProceduralObject, make_object, training_object

DILATION = 0.35
"""Signed distance, in voxels, below which a voxel's centre counts as occupied: thin parts survive."""
CLIP = 3.0
"""Signed distances are clipped to this many cubes (half voxels)."""
NEAR = 1.25
"""Colours and normals are known at lattice points closer to the surface than this, in cubes."""
CENTRE = 13
"""Lattice column of a voxel's centre; neighbours in x, y and z are 9, 3 and 1 columns away."""
COLOR_CHANNELS = (5, 6, 7)
"""Channels of the latents that hold colour."""


@dataclass(frozen=True)
class Placement:
    """Placement of an object in the grid: mirrored in x, and scaled about the centre."""

    scale: float = 1.0
    mirrored: bool = False

    def into_object(self, points: Tensor) -> Tensor:
        """Grid points to the object's own frame."""
        points = points / self.scale
        return points * points.new_tensor([-1.0, 1.0, 1.0]) if self.mirrored else points


@dataclass(frozen=True)
class VoxelSample:
    """One object on the grid.

    Attributes:
        coords: shell voxels `[N, 4]` int32; interior: dropped inside voxels `[M, 4]`.
        lattice: signed distance in cubes `[N, 27]`, clipped, at each voxel's lattice points.
        colors: `[N, 27, 3]`, 0..1, where the lattice point is near the surface, else 0.5.
        normals: `[N, 27, 3]` unit outward, near the surface, else 0.
        near: which lattice points are near the surface `[N, 27]`.
    """

    coords: Tensor
    interior: Tensor
    lattice: Tensor
    colors: Tensor
    normals: Tensor
    near: Tensor

    def to(self, device: torch.device) -> VoxelSample:
        """The same sample on another device."""
        return VoxelSample(*(getattr(self, field.name).to(device) for field in fields(self)))

    def latents(self) -> Tensor:
        """The structured latents of the object `[N, 8]`, about -1..1 each.

        Distance of the voxel's centre, its gradient over the voxel (3), the mean of the distances at the corners
        minus that at the centre, and the mean colour of the lattice points near the surface (3). Fields like these
        are smooth over the surface, so a small generator learns them, which it did not with latents of a learned
        encoder in the same time.
        """
        centre = self.lattice[:, CENTRE]
        gradient = torch.stack(
            [(self.lattice[:, CENTRE + step] - self.lattice[:, CENTRE - step]) / 2 for step in (9, 3, 1)], dim=1
        )
        corners = self.lattice[:, [0, 2, 6, 8, 18, 20, 24, 26]].mean(dim=1)
        near = self.near.float()
        total = near.sum(dim=1, keepdim=True)
        color = (near.unsqueeze(2) * (2 * self.colors - 1)).sum(dim=1) / total.clamp(min=1)
        return torch.cat([(centre / CLIP)[:, None], gradient, (corners - centre)[:, None], color], dim=1)


def corner_columns() -> Tensor:
    """Lattice column of corner c of child k of a voxel `[8, 8]`, in the decoder's orders."""
    children = [(x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 1)]
    return torch.tensor(
        [[9 * (k[0] + c[0]) + 3 * (k[1] + c[1]) + (k[2] + c[2]) for c in CORNERS] for k in children]
    )


def grid_centres(resolution: int) -> Tensor:
    """Voxel centres `[R, R, R, 3]` in the grid frame -0.5..0.5."""
    axis = (torch.arange(resolution) + 0.5) / resolution - 0.5
    return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)


def occupied_voxels(
    sdf: Callable[[Tensor], Tensor], resolution: int, dilation: float = DILATION, noise: Tensor | None = None
) -> Tensor:
    """Voxels `[M, 4]` int32 whose centre's distance is below `dilation` voxels.

    `noise` (voxels, `[R, R, R]`) is added to the distance: a ragged outline, as predicted occupancy has.
    """
    values = sdf(grid_centres(resolution)) * resolution
    if noise is not None:
        values = values + noise
    found = torch.nonzero(values < dilation).int()
    return torch.cat([torch.zeros_like(found[:, :1]), found], dim=1)


def voxel_sample(
    item: ProceduralObject,
    coords: Tensor,
    interior: Tensor,
    resolution: int,
    placement: Placement,
    with_normals: bool = True,
) -> VoxelSample:
    """Evaluates an object on the lattice of the given voxels. The encoder alone needs no normals."""

    def sdf(points: Tensor) -> Tensor:
        return item.sdf(placement.into_object(points)) * placement.scale

    side = 2 * resolution + 1
    strides = torch.tensor([side * side, side, 1])
    steps = torch.tensor([(x, y, z) for x in range(3) for y in range(3) for z in range(3)])
    ids = (2 * coords[:, 1:].long() * strides).sum(1, keepdim=True) + (steps * strides).sum(1)
    unique, inverse = torch.unique(ids, return_inverse=True)
    points = ((unique.unsqueeze(1) // strides) % side).float() / (2 * resolution) - 0.5
    distance = sdf(points)
    cubes = distance * 2 * resolution
    near = cubes.abs() < NEAR
    close = points[near]
    normals = torch.zeros_like(points)
    if with_normals:
        steps = 0.25 / resolution * torch.eye(3)
        gradient = torch.stack([sdf(close + step) - distance[near] for step in steps], dim=-1)
        normals[near] = torch.nn.functional.normalize(gradient, dim=-1)
    colors = torch.full_like(points, 0.5)
    colors[near] = item.color(placement.into_object(close))
    return VoxelSample(
        coords, interior, cubes.clamp(-CLIP, CLIP)[inverse], colors[inverse], normals[inverse], near[inverse]
    )


def draw_sample(rng: np.random.Generator, resolution: int, augment: bool = True) -> VoxelSample:
    """A random training object; seeds of held-out objects are never drawn.

    A quarter of the objects is smaller, so that sets of merged voxels are nothing new to the decoder; for a
    quarter the voxels deviate from the true ones, as predicted voxels do.
    """
    item = training_object(int(rng.integers(HELD_OUT_SEED)))
    placement, noise, dilation = Placement(), None, DILATION
    if augment:
        scale = float(rng.uniform(0.5, 1.0)) if rng.random() < 0.25 else 1.0
        placement = Placement(scale, bool(rng.random() < 0.5))
        kind = rng.random()
        if kind < 0.15:
            noise = torch.from_numpy(rng.normal(0, 0.35, (resolution,) * 3).astype(np.float32))
        elif kind < 0.25:
            dilation = 1.2
    coords = occupied_voxels(
        lambda p: item.sdf(placement.into_object(p)) * placement.scale, resolution, dilation, noise
    )
    shell, interior = split_interior(coords)
    return voxel_sample(item, shell, interior, resolution, placement)


def object_sample(seed: int, resolution: int) -> VoxelSample:
    """The unchanged object of a seed."""
    item = make_object(seed)
    shell, interior = split_interior(occupied_voxels(item.sdf, resolution))
    return voxel_sample(item, shell, interior, resolution, Placement())


def latent_statistics(resolution: int, count: int = 128) -> dict[str, Tensor]:
    """`latent_mean` and `latent_std` per channel `[C]` over the voxels of `count` training objects."""
    rng = np.random.default_rng(12)
    values = torch.cat(
        [object_sample(int(rng.integers(HELD_OUT_SEED)), resolution).latents() for _ in range(count)]
    )
    return {"latent_mean": values.mean(0), "latent_std": values.std(0)}
