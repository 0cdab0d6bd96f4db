"""Voxel-list operations between the two stages (docs/facts.md, section S6)."""

from __future__ import annotations

import torch
from torch import Tensor

from fastsam3d.modules.sparse_tensor import SparseIndex


def split_interior(coords: Tensor, distance: int = 1) -> tuple[Tensor, Tensor]:
    """Separates the shell from the inside.

    Args:
        coords: unique voxels `[N, 4]` (batch, x, y, z).
        distance: a voxel is inside if all voxels within this distance of it are occupied; 0: none.

    Returns:
        shell `[M, 4]` and inside `[N - M, 4]`, each in the order of `coords`.
    """
    inside = torch.zeros(len(coords), dtype=torch.bool, device=coords.device)
    if distance > 0 and len(coords):
        neighbours = SparseIndex(coords).neighbours()
        inside = torch.ones_like(inside)
        # Full cubes of radius d are full cubes of radius d - 1 around a voxel and all its neighbours.
        for _ in range(distance):
            padded = torch.cat([inside, inside.new_zeros(1)])
            inside = padded[neighbours].all(1)
    return coords[~inside], coords[inside]


def prune_sparse_structure(coords: Tensor, max_neighbor_axes_dist: int = 1) -> Tensor:
    """Drops voxels whose neighbourhood is fully occupied; keeps order and type. `[N, 4] -> [M, 4]`."""
    return split_interior(coords, max_neighbor_axes_dist)[0]


def connected_components(coords: Tensor) -> Tensor:
    """Component of each voxel `[N]`, int64: the smallest list position among voxels that touch, if by a corner."""
    neighbours = SparseIndex(coords).neighbours()
    labels = torch.arange(len(coords), device=coords.device)
    while True:
        padded = torch.cat([labels, labels.new_full((1,), len(coords))])
        lowest = padded[neighbours].amin(dim=1)
        lowest = lowest[lowest]  # jump to the label's own label: long thin parts need few rounds
        if torch.equal(lowest, labels):
            return labels
        labels = lowest


def drop_fragments(coords: Tensor, minimum_share: float) -> Tensor:
    """Drops components with fewer voxels than `minimum_share` of the largest one's. `[N, 4] -> [M, 4]`, order kept."""
    if minimum_share <= 0 or len(coords) == 0:
        return coords
    labels = connected_components(coords)
    sizes = torch.bincount(labels, minlength=len(coords))[labels]
    return coords[sizes >= minimum_share * sizes.max()]


def downsample_sparse_structure(
    coords: Tensor,
    max_coords: int = 42000,
    downsample_factor: int = 2,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, int]:
    """Shrinks a voxel set that is too large for the second stage.

    Each axis range is mapped linearly to a centred range of 1 / `downsample_factor` of its size; duplicates
    are dropped; if too many are left, `max_coords` of them are drawn.

    Args:
        coords: voxels `[N, 4]` (batch, x, y, z).
        max_coords: most voxels that may pass.
        downsample_factor: linear factor.
        generator: source of the draw; by default a new one with seed 0, so that the result is reproducible.

    Returns:
        voxels `[M, 4]`, and the factor by which the object's scale has to grow (1 if nothing was done).
    """
    if len(coords) <= max_coords:
        return coords, 1
    position = coords[:, 1:].double()
    low, high = position.amin(0), position.amax(0)
    size = high - low + 1
    target_size = size / downsample_factor
    target_low = low + (size - target_size) / 2
    span = (high - low).clamp(min=1)
    mapped = (position - low) / span * (target_size - 1).clamp(min=0) + target_low
    mapped = mapped.round().clamp(min=low, max=high).to(coords.dtype)
    result = torch.unique(torch.cat([coords[:, :1], mapped], dim=1), dim=0)
    if len(result) > max_coords:
        generator = generator or torch.Generator().manual_seed(0)
        kept = torch.randperm(len(result), generator=generator)[:max_coords].sort().values
        result = result[kept.to(result.device)]
    return result, downsample_factor
