"""Spectral-aware token aggregation (Fast-SAM3D, module 3, its defects fixed).

Voxels are merged on a coarser lattice before the latent stage; plain objects more than intricate ones. The lattice is
known exactly and the decoded geometry is mapped back through it: pose and scale stay untouched.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fastsam3d.acceleration.registry import Technique
from fastsam3d.diffusion.maths.spectral import occupancy_detail, picture_detail
from fastsam3d.diffusion.maths.voxel_lattice import Lattice, subtract_voxels, unique_voxels
from fastsam3d.diffusion.registry import register
from fastsam3d.diffusion.vocabulary import STRUCTURED_LATENT, TechniqueConfig, VoxelSet, WayBack, setting
from fastsam3d.errors import UserError


@dataclass(frozen=True)
class TokenAggregationConfig(TechniqueConfig):
    """Settings of token aggregation. Thresholds belong to the amplitude ratio of `maths.spectral`."""

    enabled: bool = setting(False, "Switches the technique.")
    threshold_low: float = setting(
        0.5,
        "Detail up to which an object is merged most (factor_low). Raising: faster, rougher.",
        low=0.0,
        high=1.0,
    )
    threshold_high: float = setting(
        0.7,
        "Detail from which it is merged least (factor_high). Raising: faster, rougher.",
        low=0.0,
        high=1.0,
    )
    factor_low: float = setting(
        2.0, "Cell edge in voxels for plain objects. Raising: faster, rougher.", low=1.0, high=4.0
    )
    factor_middle: float = setting(
        1.5, "Cell edge for objects in between. Raising: faster.", low=1.0, high=4.0
    )
    factor_high: float = setting(1.25, "Cell edge for intricate objects. Raising: faster.", low=1.0, high=4.0)
    picture_weight: float = setting(
        0.9, "Share of the picture, against the occupancy, in the detail. No cost.", low=0.0, high=1.0
    )
    minimum_voxels: int = setting(
        2048, "Smaller sets are left alone. Raising: slower, safer for small objects.", low=0, high=10**7
    )
    maximum_voxels: int = setting(
        42000, "From here on factor_large is used whatever the detail. Raising: slower.", low=1, high=10**7
    )
    factor_large: float = setting(
        2.0, "Cell edge for sets of maximum_voxels and more. Raising: faster, rougher.", low=1.0, high=4.0
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.threshold_low > self.threshold_high:
            raise UserError(
                f"token_aggregation.threshold_low ({self.threshold_low}) is above threshold_high "
                f"({self.threshold_high}): lower the one or raise the other."
            )


def combined_detail(picture: float, occupancy: float, picture_weight: float) -> float:
    """`H = w H2 + (1 - w) H3`."""
    return picture_weight * picture + (1.0 - picture_weight) * occupancy


def choose_factor(config: TokenAggregationConfig, picture: float, occupancy: float, voxels: int) -> float:
    """Cell edge for an object: by its size first, then by its detail.

    Args:
        picture, occupancy: detail ratios H2 and H3; 0 means that nothing is known, and leaves the object alone.
        voxels: size of the set.

    Returns:
        1 (nothing is merged) or a factor of the settings.
    """
    if voxels < config.minimum_voxels:
        return 1.0
    if voxels >= config.maximum_voxels:
        return config.factor_large
    if picture <= 0.0 or occupancy <= 0.0:
        return 1.0
    detail = combined_detail(picture, occupancy, config.picture_weight)
    if detail >= config.threshold_high:
        return config.factor_high
    return config.factor_middle if detail > config.threshold_low else config.factor_low


@dataclass(frozen=True)
class Aggregated:
    """Merged voxels and the way back.

    Attributes:
        coords: `[M, 4]`, lexicographic order, dtype of the input.
        interior_coords: `[K, 4]` known-inside cells that are not in `coords`; None where none were given.
        logits: `[1, 1, R, R, R]`, the largest logit among the voxels merged to each cell, or None.
        lattice: the way back; a `Lattice` is exact.
    """

    coords: Tensor
    interior_coords: Tensor | None
    logits: Tensor | None
    lattice: WayBack


def aggregate(
    coords: Tensor,
    factor: float,
    resolution: int,
    interior_coords: Tensor | None = None,
    logits: Tensor | None = None,
) -> Aggregated:
    """Merges voxels on a lattice of cell edge `factor`, centred in the grid.

    A coarse cell is part of the shell if any shell voxel falls in it, and interior if only interior voxels do, so
    that the shell stays closed.

    Args:
        coords: shell voxels `[N, 4]` (batch, x, y, z).
        factor: cell edge in voxels, at least 1.
        resolution: voxels a side of the grid.
        interior_coords: voxels known to be inside `[M, 4]`.
        logits: occupancy logits of the grid.
    """
    lattice = Lattice.centred(coords, factor, resolution)
    cells, inverse = unique_voxels(lattice.to_coarse(coords), resolution)
    interior = None
    if interior_coords is not None:
        inner, _ = unique_voxels(lattice.to_coarse(interior_coords), resolution)
        interior = subtract_voxels(inner, cells, resolution)
    merged = None if logits is None else merge_logits(logits, coords, cells, inverse, interior)
    return Aggregated(cells, interior, merged, lattice)


def merge_logits(
    logits: Tensor, coords: Tensor, cells: Tensor, inverse: Tensor, interior: Tensor | None
) -> Tensor:
    """A grid that holds, at each cell, the largest logit of the voxels merged to it.

    Args:
        logits: of the fine grid `[1, 1, R, R, R]`.
        coords: voxels `[N, 4]`.
        cells: distinct cells `[M, 4]`.
        inverse: for each voxel its place among `cells`, `[N]`.
        interior: cells known to be inside `[K, 4]`, or None.

    Returns:
        `[1, 1, R, R, R]`; the smallest logit elsewhere.
    """
    fine = logits.reshape(logits.shape[-3:])
    x, y, z = coords[:, 1:].long().unbind(1)
    largest = torch.full((cells.shape[0],), -torch.inf, dtype=fine.dtype, device=fine.device)
    largest = largest.scatter_reduce(0, inverse, fine[x, y, z], "amax")
    grid = torch.full_like(fine, float(fine.min()))
    if interior is not None and interior.shape[0] > 0:
        # Inside a body the logits are at their highest; the exact value does not matter for what is fine structure.
        x, y, z = interior[:, 1:].long().unbind(1)
        grid[x, y, z] = fine.max()
    x, y, z = cells[:, 1:].long().unbind(1)
    grid[x, y, z] = largest
    return grid.reshape(logits.shape)


class TokenAggregation:
    """Voxel policy: how far an object is merged follows from its size and its detail."""

    def __init__(self, config: TokenAggregationConfig) -> None:
        self.config = config

    def factor(self, voxels: VoxelSet) -> float:
        """Cell edge for an object; 1 where picture or occupancy are not known and its size does not decide."""
        count = voxels.coords.shape[0]
        if not self.config.minimum_voxels <= count < self.config.maximum_voxels:
            return choose_factor(self.config, 0.0, 0.0, count)  # size decides: spare the transforms
        picture = 0.0
        if voxels.image is not None and voxels.mask is not None:
            picture = picture_detail(voxels.image, voxels.mask)
        occupancy = 0.0 if voxels.logits is None else occupancy_detail(voxels.logits)
        return choose_factor(self.config, picture, occupancy, count)

    def reduce(self, voxels: VoxelSet) -> Aggregated | None:
        """Merged voxels, or None where nothing is merged."""
        factor = 1.0 if voxels.coords.shape[0] == 0 else self.factor(voxels)
        if factor == 1.0:
            return None
        return aggregate(voxels.coords, factor, voxels.resolution, voxels.interior_coords, voxels.logits)


register(
    Technique("token_aggregation", TokenAggregationConfig, "voxels", (STRUCTURED_LATENT,), TokenAggregation)
)
