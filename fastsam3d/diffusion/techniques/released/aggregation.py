"""Token aggregation as the released Fast-SAM3D does it, defects included. For comparison only.

Use `token_aggregation` for work. What is wrong here is kept on purpose (docs/facts.md, sections M3.2 to
M3.8): the picture's score depends on the size of the crop, because every crop is stretched to 256 x 256, and that of
the voxels counts the mean as detail; coordinates are shrunk about the middle of their box and rounded axis by axis,
so that the true factor differs from axis to axis, but what is decoded is enlarged about the middle of the grid, by
one factor. (The release enlarges the scale of the pose instead, which places the object in the same way.)

Not kept: the division by zero on a flat box, and voxels above 42000 dropped by global random numbers, which would
move every later seed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from fastsam3d.acceleration.registry import Technique
from fastsam3d.diffusion.maths.voxel_lattice import subtract_voxels, unique_voxels
from fastsam3d.diffusion.registry import register
from fastsam3d.diffusion.techniques.token_aggregation import (
    Aggregated,
    TokenAggregationConfig,
    choose_factor,
    merge_logits,
)
from fastsam3d.diffusion.vocabulary import STRUCTURED_LATENT, TechniqueConfig, VoxelSet, setting

PICTURE_SIDE = 256
PICTURE_RADIUS = int(0.15 * PICTURE_SIDE)
VOXEL_CUTOFF = 1.0 / 8.0
"""Of the grid's side, in Fourier bins: 8 of 64."""


@dataclass(frozen=True)
class ReleasedAggregationConfig(TechniqueConfig):
    """Settings of the released aggregation, with its defaults."""

    enabled: bool = setting(False, "Switches the technique.")
    threshold_low: float = setting(
        0.5, "Detail up to which an object is merged by 2. Raising: faster, rougher.", low=0.0, high=1.0
    )
    threshold_high: float = setting(
        0.7, "Detail from which it is merged by 1.25. Raising: faster, rougher.", low=0.0, high=1.0
    )
    minimum_voxels: int = setting(
        2048, "Smaller sets are left alone. Raising: slower, safer for small objects.", low=0, high=10**7
    )


def released_picture_detail(image: Tensor, mask: Tensor) -> float:
    """Share of amplitude beyond radius 38 of the stretched, windowed crop; 0 for an empty mask. See the module."""
    rows, columns = torch.nonzero(mask, as_tuple=True)
    if len(rows) == 0:
        return 0.0
    top, left = max(int(rows.min()) - 2, 0), max(int(columns.min()) - 2, 0)
    box = (slice(top, int(rows.max()) + 3), slice(left, int(columns.max()) + 3))
    grey = image[box][..., :3].float() @ torch.tensor([0.299, 0.587, 0.114], device=image.device)
    inside = mask[box].float()
    both = F.interpolate(torch.stack([grey, inside])[None], size=(PICTURE_SIDE, PICTURE_SIDE), mode="area")[0]
    kept = both[1] > 0.5
    picture = torch.where(kept, both[0], both[0][kept].mean() if bool(kept.any()) else both[0].mean())
    window = torch.hann_window(PICTURE_SIDE, periodic=False, device=image.device)
    amplitude = torch.fft.fftshift(torch.fft.fft2(picture * window[:, None] * window[None, :]).abs())
    middle = PICTURE_SIDE // 2
    amplitude[middle, middle] = 0.0
    axis = torch.arange(PICTURE_SIDE, device=image.device) - middle
    outside = axis[:, None] ** 2 + axis[None, :] ** 2 > PICTURE_RADIUS**2
    return float(amplitude[outside].sum() / (amplitude.sum() + 1e-8))


def released_occupancy_detail(logits: Tensor) -> float:
    """Share of amplitude at or beyond an eighth of the grid, the mean among the rest. `logits [1, 1, R, R, R]`."""
    grid = logits.reshape(logits.shape[-3:]).float().clamp_min(0.0)
    amplitude = torch.fft.fftn(grid).abs()
    bins = torch.fft.fftfreq(grid.shape[-1], device=grid.device)
    distance = (bins[:, None, None] ** 2 + bins[None, :, None] ** 2 + bins[None, None, :] ** 2).sqrt()
    return float(amplitude[distance >= VOXEL_CUTOFF].sum() / (amplitude.sum() + 1e-8))


@dataclass(frozen=True)
class ReleasedMap:
    """The released shrinking of coordinates, and its enlargement that is not the inverse.

    Attributes:
        low, high: corners of the voxels' box.
        factor: by which it is shrunk.
    """

    low: tuple[int, int, int]
    high: tuple[int, int, int]
    factor: float

    def to_coarse(self, coords: Tensor) -> Tensor:
        """Shrunk and rounded voxels `[N, 4] -> [N, 4]`, repeats kept."""
        low = torch.tensor(self.low, dtype=torch.float64, device=coords.device)
        span = torch.tensor(self.high, dtype=torch.float64, device=coords.device) - low
        target = (span + 1.0) / self.factor
        start = low + (span + 1.0 - target) / 2.0
        share = (coords[:, 1:].double() - low) / span.clamp_min(1.0)
        places = torch.round(share * (target - 1.0) + start)
        places = torch.minimum(torch.maximum(places, start.trunc()), (start + target - 1.0).trunc())
        return torch.cat([coords[:, :1], places.to(coords.dtype)], dim=1)

    def object_points_to_fine(self, points: Tensor) -> Tensor:
        """Points of the object frame, enlarged about its origin. `[V, 3] -> [V, 3]`."""
        return points * self.factor


class ReleasedAggregation:
    """Voxel policy with the released scores and the released map."""

    def __init__(self, config: ReleasedAggregationConfig) -> None:
        self.rule = TokenAggregationConfig(
            enabled=True,
            threshold_low=config.threshold_low,
            threshold_high=config.threshold_high,
            minimum_voxels=config.minimum_voxels,
        )

    def reduce(self, voxels: VoxelSet) -> Aggregated | None:
        """Merged voxels, or None where nothing is merged."""
        picture = occupancy = 0.0
        if voxels.image is not None and voxels.mask is not None:
            picture = released_picture_detail(voxels.image, voxels.mask)
        if voxels.logits is not None:
            occupancy = released_occupancy_detail(voxels.logits)
        factor = choose_factor(self.rule, picture, occupancy, len(voxels.coords))
        return None if factor == 1.0 else released_aggregate(voxels, factor)


def released_aggregate(voxels: VoxelSet, factor: float) -> Aggregated:
    """Shrinks the voxels of an object by `factor`."""
    low, high = voxels.coords[:, 1:].amin(0).tolist(), voxels.coords[:, 1:].amax(0).tolist()
    shrinking = ReleasedMap((low[0], low[1], low[2]), (high[0], high[1], high[2]), factor)
    cells, inverse = unique_voxels(shrinking.to_coarse(voxels.coords), voxels.resolution)
    interior = None
    if voxels.interior_coords is not None:
        inner, _ = unique_voxels(shrinking.to_coarse(voxels.interior_coords), voxels.resolution)
        interior = subtract_voxels(inner, cells, voxels.resolution)
    logits = voxels.logits
    if logits is not None:
        logits = merge_logits(logits, voxels.coords, cells, inverse, interior)
    return Aggregated(cells, interior, logits, shrinking)


register(
    Technique(
        "released_aggregation", ReleasedAggregationConfig, "voxels", (STRUCTURED_LATENT,), ReleasedAggregation
    )
)
