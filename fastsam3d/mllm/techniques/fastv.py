"""FastV (arXiv 2403.06764): the score of a group is the attention of the last token to it, in the layer before the cut.

Groups are scored once, while the prompt is read. The attention is summed over the tokens of a group, so a group stays
or leaves as a whole.
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
    """Scores groups by the attention of the last token."""

    needs_layer = True
    scale = MASS

    def __init__(self, config: FastVConfig) -> None:
        self._rows = RowSet("last")

    def score(self, batch: ScoringBatch) -> Tensor:
        return batch.attention(self._rows)


register(Technique("fastv", FastVConfig, SCORER, STAGES, FastVScorer, needs=(ATTENTION,)))
