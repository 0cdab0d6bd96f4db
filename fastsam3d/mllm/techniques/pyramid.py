"""PyramidDrop (arXiv 2410.17247): at several layers the rest is ranked again, and a share of it stays.

`pruning` says the first of these layers and the share; the others follow at equal distances. Published for 32 layers:
half of the tokens stays at layers 8, 16 and 24. A group is worth the attention of the last token, as in FastV.
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
    """Attention of the last token, asked at each cut about the groups that are left."""

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
