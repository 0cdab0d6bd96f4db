"""PyramidDrop (arXiv 2410.17247): at several layers the remaining groups are ranked again, and a share of them stays.

The settings of `pruning` give the first of these layers and the share. The other layers follow at equal distances. As
published for 32 layers, half of the remaining tokens stay at layers 8, 16 and 24. The score of a group is the attention
of the last token, as in FastV.
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
class PyramidConfig(TechniqueConfig):
    """Settings of PyramidDrop."""

    enabled: bool = setting(False, "Switches the technique.")
    cuts: int = setting(3, "Layers at which tokens leave. Raising: faster; less accurate.", low=1, high=16)


class PyramidScorer(Scorer):
    """Scores the remaining groups at each cut by the attention of the last token."""

    needs_layer = True
    scale = MASS

    def __init__(self, config: PyramidConfig) -> None:
        self._cuts = config.cuts

    def cuts(self, first: int, layers: int) -> tuple[int, ...]:
        places = (first + (layers - first) * cut // self._cuts for cut in range(self._cuts))
        return tuple(sorted(set(places)))

    def score(self, batch: ScoringBatch) -> Tensor:
        return batch.attention(RowSet("last"))


register(Technique("pyramid", PyramidConfig, SCORER, STAGES, PyramidScorer, needs=(ATTENTION,)))
