"""FastV (arXiv 2403.06764): a group is worth the attention that the last token pays it in the layer before the cut.

It is asked once, while the prompt is read. Groups stay whole: their attention is summed over their tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from fastsam3d.acceleration.registry import Technique
from fastsam3d.acceleration.settings import TechniqueConfig, setting
from fastsam3d.mllm.attention_rows import RowSet
from fastsam3d.mllm.budgets import MASS
from fastsam3d.mllm.capabilities import ATTENTION, SCORER, STAGES
from fastsam3d.mllm.registry import register
from fastsam3d.mllm.vocabulary import Scorer, ScoringBatch


@dataclass(frozen=True)
class FastVConfig(TechniqueConfig):
    """Settings of FastV."""

    enabled: bool = setting(False, "Switches the technique.")


class FastVScorer(Scorer):
    """Attention of the last token."""

    needs_layer = True
    scale = MASS

    def __init__(self, config: FastVConfig) -> None:
        self._rows = RowSet("last")

    def score(self, batch: ScoringBatch) -> Tensor:
        return batch.attention(self._rows)


register(Technique("fastv", FastVConfig, SCORER, STAGES, FastVScorer, needs=(ATTENTION,)))
