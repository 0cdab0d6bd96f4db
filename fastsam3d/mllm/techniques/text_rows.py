"""The score of a group is the attention of the text after the visual tokens to it, in the layer before the cut."""

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
class TextRowsConfig(TechniqueConfig):
    """Settings of scoring by rows of text."""

    enabled: bool = setting(False, "Switches the technique.")
    skip_first: int = setting(0, "Tokens after the visual ones that do not count. No effect on speed.", low=0)
    skip_last: int = setting(0, "Tokens at the end of the prompt that do not count. No effect on speed.", low=0)


class TextRowsScorer(Scorer):
    """Scores groups by the mean attention of the rows of text."""

    needs_layer = True
    scale = MASS

    def __init__(self, config: TextRowsConfig) -> None:
        self._rows = RowSet("text", config.skip_first, config.skip_last)

    def score(self, batch: ScoringBatch) -> Tensor:
        return batch.attention(self._rows)


register(Technique("text_rows", TextRowsConfig, SCORER, STAGES, TextRowsScorer, needs=(ATTENTION,)))
