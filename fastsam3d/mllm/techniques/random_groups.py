"""Random pruning: the control that every scorer must beat. A seed decides which groups leave."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fastsam3d.acceleration.registry import Technique
from fastsam3d.acceleration.settings import TechniqueConfig, setting
from fastsam3d.mllm.capabilities import SCORER, STAGES
from fastsam3d.mllm.registry import register
from fastsam3d.mllm.vocabulary import Scorer, ScoringBatch


@dataclass(frozen=True)
class RandomConfig(TechniqueConfig):
    """Settings of random pruning."""

    enabled: bool = setting(False, "Switches the technique.")
    seed: int = setting(0, "Seed of the random scores. No effect on speed.", low=0, high=2**31 - 1)


class RandomScorer(Scorer):
    """Draws a random score for every group. It depends on the seed and the number of the sample, not on its batch."""

    def __init__(self, config: RandomConfig) -> None:
        self._seed = config.seed

    def score(self, batch: ScoringBatch) -> Tensor:
        groups = batch.layout.present.shape[1]
        # On the CPU whatever the device is: one seed keeps the same objects on every machine.
        generator = torch.Generator()
        rows = [
            torch.rand(groups, generator=generator.manual_seed(self._seed + 1_000_003 * number))
            for number in batch.prompts.ordinals
        ]
        return torch.stack(rows)


register(Technique("random", RandomConfig, SCORER, STAGES, RandomScorer))
