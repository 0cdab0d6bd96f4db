"""Turns occupancy logits into the voxels that the second stage works on."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import torch
from torch import Tensor

from fastsam3d.modules.voxels import downsample_sparse_structure, drop_fragments, split_interior
from fastsam3d.sam3d.models.config import ModelConfig
from fastsam3d.sam3d.pipeline.finite import require_finite
from fastsam3d.sam3d.pipeline.reconstruction import SparseStructure

logger = logging.getLogger(__name__)

FALLBACK_FRACTION = 1 / 64
"""Share of the grid that is taken, highest logits first, where no voxel is occupied."""


def structure_of(
    latents: Mapping[str, Tensor], logits: Tensor, config: ModelConfig, generator: torch.Generator | None = None
) -> SparseStructure:
    """Finds the voxels of one object: threshold, drop the inside, halve the grid if it is too full.

    Args:
        latents: of the first stage, which are kept beside the voxels.
        logits: `[1, 1, R, R, R]`.
        generator: used only where a halved grid still has too many voxels, to choose among them.

    Raises:
        UserError: logits are not finite.
    """
    occupied = drop_fragments(occupied_voxels(logits), config.minimum_component_share)
    shell, inside = split_interior(occupied, config.downsample_ss_dist)
    coords, factor = downsample_sparse_structure(shell, config.max_voxels, generator=generator)
    # On a halved grid the dropped voxels have no counterpart; the surface is then taken without them.
    interior = inside if config.interior_is_inside and factor == 1 else inside[:0]
    return SparseStructure(dict(latents), logits, coords, interior, factor)


def occupied_voxels(logits: Tensor) -> Tensor:
    """Finds the voxels with a positive logit, int32 `[N, 4]` (batch, x, y, z) in lexicographic order.

    Where there is none, the highest logits are taken and a warning is logged: an object whose occupancy is
    unsure everywhere still shows what the network favours.

    Args:
        logits: `[1, 1, R, R, R]`.

    Raises:
        UserError: logits are not finite.
    """
    require_finite("ss_decoder", logits)
    occupied = logits[:, 0] > 0
    if not occupied.any():
        count = max(1, int(logits.numel() * FALLBACK_FRACTION))
        logger.warning("no voxel is occupied; taking the %d highest of %d logits", count, logits.numel())
        occupied = torch.zeros_like(occupied).flatten()
        occupied[logits.flatten().topk(count).indices] = True
        occupied = occupied.view_as(logits[:, 0])
    return torch.argwhere(occupied).int()
