"""Random Drop, a rival of the published comparison: a random share of the latent voxels is thrown away.

The published definition is not public (docs/facts.md, section M4.1). Ours: before the latent stage each object
loses a fixed share of its voxels, drawn without replacement; latent network and decoder see the rest alone, and
nothing stands in for what is gone. Which voxels go depends on a seed and their number only: the global random state
is left alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fastsam3d.acceleration.registry import Technique
from fastsam3d.diffusion.maths.voxel_lattice import Lattice
from fastsam3d.diffusion.registry import register
from fastsam3d.diffusion.techniques.token_aggregation import Aggregated
from fastsam3d.diffusion.vocabulary import STRUCTURED_LATENT, TechniqueConfig, VoxelSet, setting


@dataclass(frozen=True)
class RandomDropConfig(TechniqueConfig):
    """Settings of Random Drop."""

    enabled: bool = setting(False, "Switches the technique.")
    dropped_fraction: float = setting(
        0.5, "Share of the voxels that is thrown away. Raising: faster; more holes.", low=0.0, high=0.95
    )
    seed: int = setting(0, "Of the draw. No effect on speed.", low=0, high=2**31 - 1)


class RandomDrop:
    """Voxel policy: a random subset, in its old order."""

    def __init__(self, config: RandomDropConfig) -> None:
        self.config = config

    def reduce(self, voxels: VoxelSet) -> Aggregated | None:
        """Returns the remaining voxels, with the identity as the way back; None where nothing is dropped."""
        count = len(voxels.coords)
        kept = count - int(self.config.dropped_fraction * count)
        if kept == count:
            return None
        # On the CPU whatever the device is: one seed drops the same voxels on every machine.
        generator = torch.Generator().manual_seed(self.config.seed)
        chosen = torch.randperm(count, generator=generator, device="cpu")[:kept].sort().values.to(voxels.coords.device)
        identity = Lattice((0.0, 0.0, 0.0), 1.0, voxels.resolution)
        return Aggregated(voxels.coords[chosen], voxels.interior_coords, voxels.logits, identity)


register(Technique("random_drop", RandomDropConfig, "voxels", (STRUCTURED_LATENT,), RandomDrop))
