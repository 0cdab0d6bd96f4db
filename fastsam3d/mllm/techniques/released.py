"""FastV within Fast3D as its authors released it, defects included. For comparison only: nothing gets faster.

Use `fastv` or `gap` for real work. These defects are kept on purpose. Visual tokens are masked but still computed. They
are ranked one by one, so an object may be visible in part. In each step of generation the newest token ranks them
again; the first beam decides for all beams. A cut at layer 0 draws tokens at random, again in each step. Padding
objects count. Each sample of a batch is treated as if it were alone, because the release generates one at a time.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fastsam3d.acceleration.registry import Technique
from fastsam3d.acceleration.settings import TechniqueConfig, setting
from fastsam3d.mllm.attention_rows import RowSet
from fastsam3d.mllm.budgets import LOGITS, MASS
from fastsam3d.mllm.capabilities import ATTENTION, SCORER, STAGES
from fastsam3d.mllm.registry import register
from fastsam3d.mllm.techniques.external import scores_given
from fastsam3d.mllm.vocabulary import Scorer, ScoringBatch

_STEPS = 1_009
"""Steps after which the seeds of a sample would repeat those of the next sample."""


@dataclass(frozen=True)
class ReleasedConfig(TechniqueConfig):
    """Settings of the released masking. The numbers of `pruning` count single tokens here."""

    enabled: bool = setting(False, "Switches the technique.")
    scores: str = setting(
        "attention",
        "attention: that of the newest token in the layer before the cut. external: scores of objects that the caller "
        "gives; each token gets the score of its object. No effect on speed.",
        choices=("attention", "external"),
    )
    seed: int = setting(0, "Seed of the random choice of a cut at layer 0. No effect on speed.", low=0, high=2**31 - 1)


class ReleasedScorer(Scorer):
    """Scores single visual tokens, in every step of generation."""

    every_step = True
    scale = MASS

    def __init__(self, config: ReleasedConfig) -> None:
        self._config = config
        if config.scores == "external":
            self.scale = LOGITS  # type: ignore[misc]

    def score(self, batch: ScoringBatch) -> Tensor:
        if self._config.scores == "external":
            return self._external(batch)
        return self._drawn(batch) if batch.layer == 0 else batch.attention(RowSet("last"))

    def _external(self, batch: ScoringBatch) -> Tensor:
        objects = batch.prompts.layout
        scores = scores_given(batch.prompts.objects, objects).to(objects.live.device)
        of_tokens = scores.gather(1, objects.group_of.clamp(min=0))
        columns = batch.layout.visual.int().argsort(dim=1, descending=True, stable=True)
        return of_tokens.gather(1, columns[:, : batch.layout.present.shape[1]])

    def _drawn(self, batch: ScoringBatch) -> Tensor:
        generator, tokens = torch.Generator(), batch.layout.present.shape[1]
        rows = []
        for number in batch.prompts.ordinals:
            seed = self._config.seed + 1_000_003 * (number * _STEPS + batch.step)
            rows.append(torch.rand(tokens, generator=generator.manual_seed(seed)))
        return torch.stack(rows)


register(Technique("released", ReleasedConfig, SCORER, STAGES, ReleasedScorer, needs=(ATTENTION,)))
