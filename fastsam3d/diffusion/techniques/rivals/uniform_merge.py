"""Uniform Merge, a rival of the published comparison: every object is merged on a lattice of one cell edge.

The published definition is not public (docs/facts.md, section M4.1). Ours: the lattice of token aggregation
with one factor for all objects, whatever their detail and size, and the same exact way back.
"""

from __future__ import annotations

from dataclasses import dataclass

from fastsam3d.acceleration.registry import Technique
from fastsam3d.diffusion.registry import register
from fastsam3d.diffusion.techniques.token_aggregation import Aggregated, aggregate
from fastsam3d.diffusion.vocabulary import STRUCTURED_LATENT, TechniqueConfig, VoxelSet, setting


@dataclass(frozen=True)
class UniformMergeConfig(TechniqueConfig):
    """Settings of Uniform Merge."""

    enabled: bool = setting(False, "Switches the technique.")
    factor: float = setting(2.0, "Cell edge in voxels. Raising: faster, rougher.", low=1.0, high=4.0)


class UniformMerge:
    """Voxel policy: the same lattice for every object."""

    def __init__(self, config: UniformMergeConfig) -> None:
        self.factor = config.factor

    def reduce(self, voxels: VoxelSet) -> Aggregated | None:
        """Merged voxels, or None where nothing is merged."""
        if self.factor == 1.0 or len(voxels.coords) == 0:
            return None
        return aggregate(voxels.coords, self.factor, voxels.resolution, voxels.interior_coords, voxels.logits)


register(Technique("uniform_merge", UniformMergeConfig, "voxels", (STRUCTURED_LATENT,), UniformMerge))
