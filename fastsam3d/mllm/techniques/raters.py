"""The scoring half of SparseVLM (arXiv 2410.04417): only words that have to do with the picture rank its objects.

A word is a rater if it resembles the visual tokens at least as much as the words do on average. The score of a group is
the attention of the raters to it, in the layer before the cut. Not included are the published rule for the number of
tokens, and the merging of tokens that leave.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fastsam3d.acceleration.registry import Technique
from fastsam3d.acceleration.settings import TechniqueConfig, setting
from fastsam3d.mllm.attention_rows import RowSet
from fastsam3d.mllm.budgets import MASS
from fastsam3d.mllm.capabilities import ATTENTION, SCORER, STAGES
from fastsam3d.mllm.registry import register
from fastsam3d.mllm.vocabulary import Scorer, ScoringBatch


@dataclass(frozen=True)
class RatersConfig(TechniqueConfig):
    """Settings of scoring by raters."""

    enabled: bool = setting(False, "Switches the technique.")


class RatersScorer(Scorer):
    """Scores groups by the attention of the words that resemble the visual tokens."""

    needs_layer = True
    scale = MASS

    def __init__(self, config: RatersConfig) -> None:
        self._text = RowSet("text")

    def score(self, batch: ScoringBatch) -> Tensor:
        text = self._text.weights(batch.layout) > 0
        return batch.attention(rater_weights(batch.hidden.float(), text, batch.layout.visual))


def rater_weights(hidden: Tensor, text: Tensor, visual: Tensor) -> Tensor:
    """Equal weights for the words whose likeness to the visual tokens is at least the mean over all words.

    Args:
        hidden: (B, S, D) hidden states.
        text, visual: (B, S) bool: words, and visual tokens.

    Returns:
        (B, S), 0 for all other tokens; each row sums to 1.
    """
    first = int(text.any(0).int().argmax())  # words are on the right: all columns are not needed
    words = text[:, first:]
    products = (hidden @ hidden[:, first:].transpose(1, 2)).masked_fill(~words[:, None], float("-inf"))
    likeness = (products.softmax(-1) * visual[..., None]).sum(1) / visual.sum(1, keepdim=True).clamp(min=1)
    mean = likeness.sum(1, keepdim=True) / words.sum(1, keepdim=True)
    raters = words & (likeness >= mean - torch.finfo(likeness.dtype).eps)
    return torch.nn.functional.pad(raters / raters.sum(1, keepdim=True), (first, 0))


register(Technique("raters", RatersConfig, SCORER, STAGES, RatersScorer, needs=(ATTENTION,)))
