"""Says at which layer visual tokens leave, and how many of them. A scorer decides which ones."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fastsam3d.acceleration.registry import Technique
from fastsam3d.acceleration.settings import TechniqueConfig, setting
from fastsam3d.mllm.budgets import Budget
from fastsam3d.mllm.capabilities import PRUNING, STAGES
from fastsam3d.mllm.registry import register


@dataclass(frozen=True)
class PruningConfig(TechniqueConfig):
    """Settings of visual token pruning. A group is a set of tokens that stay or leave together, usually an object."""

    enabled: bool = setting(False, "Switches the technique.")
    depth: float = setting(
        0.0, "Share of the layers that see all visual tokens. Raising: slower; more accurate.", low=0, high=1
    )
    layer: int = setting(
        -1, "First layer that does not see the pruned tokens, counted from 0. -1: `depth` decides.", low=-1
    )
    budget: str = setting(
        "share",
        "How many groups stay. fixed: `keep` groups. share: the `share` of the groups. mass: the smallest set that "
        "holds the share `alpha` of the scores. threshold: each group that holds at least `times` the even share, "
        "which is 1 / number of groups.",
        choices=("fixed", "share", "mass", "threshold"),
    )
    keep: int = setting(10, "Groups that stay with budget fixed. Raising: slower; more accurate.", low=1)
    share: float = setting(
        0.1, "Share of the groups that stays with budget share. Raising: slower; more accurate.", low=0, high=1
    )
    alpha: float = setting(
        0.21, "Share of the scores that stays with budget mass. Raising: slower; more accurate.", low=0, high=1
    )
    times: float = setting(
        1.0,
        "With budget threshold, a group needs this many times the even share. Raising: faster; less accurate.",
        low=0,
    )
    mask: bool = setting(
        False, "Masks tokens but still computes them: equal results, nothing is saved. For comparison."
    )

    def first_layer(self, layers: int) -> int:
        """The first layer that does not see the pruned tokens, in a model of `layers` layers."""
        return self.layer if self.layer >= 0 else min(math.floor(self.depth * layers + 0.5), layers - 1)

    def amount(self) -> Budget:
        """The budget: how many groups stay."""
        return Budget(self.budget, self.keep, self.share, self.alpha, self.times)


register(Technique("pruning", PruningConfig, PRUNING, STAGES))
