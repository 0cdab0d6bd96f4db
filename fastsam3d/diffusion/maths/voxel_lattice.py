"""Coarser voxel lattices with an exact way back (Fast-SAM3D's token aggregation, its map fixed)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Lattice:
    """The affine map between a voxel grid and a coarser one that lies in a grid of the same resolution.

    In grid units (a voxel of index p covers [p, p + 1)) a fine position g and its coarse position q obey
    `g = origin + factor * q`.

    Attributes:
        origin: per axis, grid units.
        factor: edge length of a coarse cell in fine voxels, at least 1; one number, hence nothing is distorted.
        resolution: voxels a side of both grids.
    """

    origin: tuple[float, float, float]
    factor: float
    resolution: int

    @classmethod
    def centred(cls, coords: Tensor, factor: float, resolution: int) -> Lattice:
        """The lattice that puts the voxels' box in the middle of the grid, to half a cell.

        Networks have seen centred objects only. The box is laid over as few cells as it fits in, which an even
        number of cells around the very middle would not always allow. A flat axis is a box like any other.

        Args:
            coords: voxels `[N, 4]` (batch, x, y, z), N >= 1.
            factor: edge length of a coarse cell.
            resolution: voxels a side of the grid.
        """
        low, high = coords[:, 1:].amin(0).tolist(), (coords[:, 1:].amax(0) + 1).tolist()
        origin = []
        for start, end in zip(low, high, strict=True):
            cells = math.ceil((end - start) / factor)
            first = (resolution - cells) // 2
            origin.append((start + end) / 2 - factor * (first + cells / 2))
        return cls((origin[0], origin[1], origin[2]), factor, resolution)

    def _origin(self, like: Tensor) -> Tensor:
        return torch.tensor(self.origin, dtype=torch.float64, device=like.device)

    def to_coarse(self, coords: Tensor) -> Tensor:
        """Coarse cell of every voxel, by its centre. `[N, 4] -> [N, 4]`, dtype kept, order and repeats kept."""
        centres = coords[:, 1:].double() + 0.5
        cells = torch.floor((centres - self._origin(coords)) / self.factor).clamp(0, self.resolution - 1)
        return torch.cat([coords[:, :1], cells.to(coords.dtype)], dim=1)

    def to_fine(self, positions: Tensor) -> Tensor:
        """Fine positions of coarse ones, both in grid units. `[V, 3] -> [V, 3]`."""
        return (self._origin(positions) + self.factor * positions.double()).to(positions.dtype)

    def object_points_to_fine(self, points: Tensor) -> Tensor:
        """As `to_fine`, for points of the object frame, where the grid spans [-0.5, 0.5]. `[V, 3] -> [V, 3]`."""
        grid = (points.double() + 0.5) * self.resolution
        return ((self._origin(points) + self.factor * grid) / self.resolution - 0.5).to(points.dtype)


def voxel_keys(coords: Tensor, resolution: int) -> Tensor:
    """One whole number a voxel, in the lexicographic order of (batch, x, y, z). `[N, 4] -> [N]`, int64."""
    b, x, y, z = coords.long().unbind(1)
    return ((b * resolution + x) * resolution + y) * resolution + z


def unique_voxels(coords: Tensor, resolution: int) -> tuple[Tensor, Tensor]:
    """Distinct voxels in lexicographic order, and for each given voxel its place among them.

    Returns:
        `[M, 4]` of the dtype of `coords`, and `[N]` int64.
    """
    keys, inverse = torch.unique(voxel_keys(coords, resolution), return_inverse=True)
    columns = []
    for _ in range(3):
        columns.append(keys % resolution)
        keys = torch.div(keys, resolution, rounding_mode="floor")
    columns.append(keys)
    return torch.stack(columns[::-1], dim=1).to(coords.dtype), inverse


def subtract_voxels(coords: Tensor, removed: Tensor, resolution: int) -> Tensor:
    """The voxels of `coords` that are not in `removed`, order kept. `[N, 4], [M, 4] -> [K, 4]`."""
    return coords[~torch.isin(voxel_keys(coords, resolution), voxel_keys(removed, resolution))]
