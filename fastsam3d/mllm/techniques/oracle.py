"""The oracle: the score of a group is its attention in a full run of the prompt, averaged over all layers and heads.

It costs more than it saves. It shows how good a perfect predictor of this attention would be.
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
class OracleConfig(TechniqueConfig):
    """Settings of the oracle."""

    enabled: bool = setting(False, "Switches the technique.")
    rows: str = setting(
        "last", "Rows that count: the last token, or all text after the visual tokens.", choices=("last", "text")
    )
    skip_first: int = setting(0, "For rows=text: tokens after the visual ones that do not count.", low=0)
    skip_last: int = setting(0, "For rows=text: last tokens of the prompt that do not count.", low=0)


class OracleScorer(Scorer):
    """Scores groups by the attention map of a full run."""

    scale = MASS

    def __init__(self, config: OracleConfig) -> None:
        self._rows = RowSet(config.rows, config.skip_first, config.skip_last)

    @property
    def full_run(self) -> RowSet:
        return self._rows

    def score(self, batch: ScoringBatch) -> Tensor:
        assert batch.full_map is not None
        return batch.full_map


register(Technique("oracle", OracleConfig, SCORER, STAGES, OracleScorer, needs=(ATTENTION,)))
