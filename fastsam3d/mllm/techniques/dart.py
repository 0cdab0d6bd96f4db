"""DART (arXiv 2502.11494): groups that resemble one of a few pivots are duplicates, and leave.

Pivots are the groups whose keys in the layer before the cut have the largest norms. Pivots stay. Then those groups stay
whose greatest cosine similarity to a pivot is lowest. No attention is read.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from fastsam3d.acceleration.registry import Technique
from fastsam3d.acceleration.settings import TechniqueConfig, setting
from fastsam3d.mllm.budgets import ORDER
from fastsam3d.mllm.capabilities import ATTENTION, SCORER, STAGES
from fastsam3d.mllm.registry import register
from fastsam3d.mllm.vocabulary import Scorer, ScoringBatch


@dataclass(frozen=True)
class DartConfig(TechniqueConfig):
    """Settings of DART."""

    enabled: bool = setting(False, "Switches the technique.")
    pivots: int = setting(4, "Groups with the largest keys, which stay. No effect on speed.", low=1, high=1024)


class DartScorer(Scorer):
    """Ranks the pivots first, then the groups that resemble them least."""

    needs_layer = True
    scale = ORDER

    def __init__(self, config: DartConfig) -> None:
        self._pivots = config.pivots

    def score(self, batch: ScoringBatch) -> Tensor:
        layout = batch.layout
        norms = layout.averaged(batch.read_keys().float().norm(dim=-1).mean(1)[..., None])[..., 0]
        return least_similar_first(norms, layout.averaged(batch.hidden.float()), layout.present, self._pivots)


def least_similar_first(norms: Tensor, features: Tensor, present: Tensor, pivots: int) -> Tensor:
    """Scores groups by their dissimilarity to pivots.

    Args:
        norms: (B, N) norms of keys; the groups with the largest are pivots.
        features: (B, N, D) mean hidden states of the groups.
        present: (B, N) bool: groups that hold an object and have not left.
        pivots: number of pivots.

    Returns:
        (B, N): 2 for a pivot; for another group, minus its greatest cosine similarity to a pivot.
    """
    features = functional.normalize(features, dim=-1)
    norms = norms.masked_fill(~present, float("-inf"))
    chosen = norms.topk(min(pivots, norms.shape[1]), dim=1).indices
    similarity = features @ features.gather(1, chosen[..., None].expand(-1, -1, features.shape[-1])).transpose(1, 2)
    real = present.gather(1, chosen)[:, None]
    scores = -similarity.masked_fill(~real, float("-inf")).amax(-1)
    return scores.scatter(1, chosen, 2.0)


register(Technique("dart", DartConfig, SCORER, STAGES, DartScorer, needs=(ATTENTION,)))
