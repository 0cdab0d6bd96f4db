"""First-Block cache: where the first transformer block changes as it did last time, so will the others.

The first block always runs. If its change `r = out - in` differs from that of the last whole pass by less than a
threshold, `|r - r'| / |r'|`, the change that all other blocks made then stands in for them. Each guidance branch has
its own memory (FBCache of ParaAttention, one block, threshold 0.05; docs/facts.md, section M5.6). It reacts
to the input at hand where a fixed interval cannot; what runs around the blocks, such as the sparse convolutions of
the latent network, runs at every step.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from fastsam3d.acceleration.registry import Technique
from fastsam3d.diffusion.maths import relative_distance
from fastsam3d.diffusion.registry import register
from fastsam3d.diffusion.vocabulary import (
    SPARSE_STRUCTURE,
    STAGES,
    TechniqueConfig,
    Trajectory,
    setting,
    stages_setting,
)


@dataclass(frozen=True)
class FirstBlockCacheConfig(TechniqueConfig):
    """Settings of the First-Block cache.

    The published threshold, 0.05, belongs to 28 to 50 steps of image models; at 25 steps it skips next to nothing
    here, and the defaults are larger.
    """

    enabled: bool = setting(False, "Switches the technique.")
    stages: str = stages_setting()
    threshold: float = setting(
        0.12,
        "Relative change of the first block's output below which the others are skipped. Raising: faster, rougher.",
        low=0.0,
        high=10.0,
    )
    latent_threshold: float = setting(
        0.2, "The same for the latent stage. Raising: faster, rougher.", low=0.0, high=10.0
    )
    first_steps: int = setting(
        2, "Whole passes at the start of a stage. Raising: slower, safer.", low=1, high=50
    )
    max_consecutive_skips: int = setting(
        50, "Longest run of skipped passes; as published next to no limit. Raising: faster.", low=0, high=50
    )
    last_step: bool = setting(True, "The last step of a stage is computed. On: one step slower, safer.")


class FirstBlockCache:
    """State and block policy of one run."""

    probe = 1

    def __init__(self, config: FirstBlockCacheConfig, trajectory: Trajectory) -> None:
        self.config, self.trajectory = config, trajectory
        first = trajectory.stage == SPARSE_STRUCTURE
        self.threshold = config.threshold if first else config.latent_threshold
        self._reference: dict[tuple[str, int], dict[str, Tensor]] = {}
        self._skips: dict[tuple[str, int], int] = {}

    def reuse(self, key: tuple[str, int], step: int, probe: dict[str, Tensor]) -> bool:
        """Tells whether the blocks after the first are skipped in this pass."""
        if self._may_reuse(key, step) and self._distance(key, probe) < self.threshold:
            self._skips[key] += 1
            return True
        self._reference[key], self._skips[key] = probe, 0
        return False

    def computed(self, key: tuple[str, int], step: int, change: dict[str, Tensor]) -> None:
        """Notes a whole pass, whose probe is known already."""

    def _may_reuse(self, key: tuple[str, int], step: int) -> bool:
        return (
            key in self._reference
            and not self.trajectory.shortcut
            and step >= self.config.first_steps
            and not (self.config.last_step and step == self.trajectory.count - 1)
            and self._skips[key] < self.config.max_consecutive_skips
        )

    def _distance(self, key: tuple[str, int], probe: dict[str, Tensor]) -> float:
        return relative_distance(probe, self._reference[key], self._reference[key])


register(
    Technique(
        "first_block_cache",
        FirstBlockCacheConfig,
        "blocks",
        STAGES,
        FirstBlockCache,
        needs=("block_stack",),
    )
)
