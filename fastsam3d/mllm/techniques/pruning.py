"""Where visual tokens leave, and how many. Which of them leave is a scorer's choice."""

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
    """Settings of visual token pruning. A group is what stays or leaves together, for instance an object."""

    enabled: bool = setting(False, "Switches the technique.")
    depth: float = setting(
        0.0, "Share of the layers that see all visual tokens. Raising: slower; more accurate.", low=0, high=1
    )
    layer: int = setting(
        -1, "The first layer that lacks tokens, counted from 0, instead of `depth`; -1: `depth` says it.", low=-1
    )
    budget: str = setting(
        "share",
        "How many groups stay: the number `keep`, the `share` of a prompt's groups, the smallest set that holds the "
        "`mass` alpha of the scores, or with `threshold` those that hold `times` the even share of it.",
        choices=("fixed", "share", "mass", "threshold"),
    )
    keep: int = setting(10, "Groups that stay with budget fixed. Raising: slower; more accurate.", low=1)
    share: float = setting(
        0.1, "Share of the groups that stays with budget share. Raising: slower; more accurate.", low=0, high=1
    )
    alpha: float = setting(0.21, "Mass that stays with budget mass. Raising: slower; more accurate.", low=0, high=1)
    times: float = setting(
        1.0,
        "Multiple of the even share that groups need with budget threshold. Raising: faster; less accurate.",
        low=0,
    )
    mask: bool = setting(
        False, "Masks tokens and computes them all the same: equal results and no saving, for comparison."
    )

    def first_layer(self, layers: int) -> int:
        """The first layer that lacks tokens, of so many."""
        return self.layer if self.layer >= 0 else min(math.floor(self.depth * layers + 0.5), layers - 1)

    def amount(self) -> Budget:
        """How many groups stay."""
        return Budget(self.budget, self.keep, self.share, self.alpha, self.times)


register(Technique("pruning", PruningConfig, PRUNING, STAGES))
