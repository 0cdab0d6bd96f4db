"""DivPrune (CVPR 2025): the groups that stay are as different from one another as possible, whatever the question is.

The choice is greedy. The first group is the one whose nearest neighbour is farthest. Each next group is the one whose
nearest chosen group is farthest. Distances are cosine distances of the mean hidden states of groups; at layer 0 these
are the embeddings, as published.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from fastsam3d.acceleration.registry import Technique
from fastsam3d.acceleration.settings import TechniqueConfig, setting
from fastsam3d.mllm.budgets import ORDER
from fastsam3d.mllm.capabilities import SCORER, STAGES
from fastsam3d.mllm.registry import register
from fastsam3d.mllm.vocabulary import Scorer, ScoringBatch


@dataclass(frozen=True)
class DivPruneConfig(TechniqueConfig):
    """Settings of DivPrune."""

    enabled: bool = setting(False, "Switches the technique.")


class DivPruneScorer(Scorer):
    """Chooses groups one after the other. A group that is chosen earlier has a higher score."""

    scale = ORDER

    def __init__(self, config: DivPruneConfig) -> None:
        self._config = config

    def score(self, batch: ScoringBatch) -> Tensor:
        features = functional.normalize(batch.layout.averaged(batch.hidden.float()), dim=-1)
        return most_different_first(1.0 - features @ features.transpose(1, 2), batch.layout.present, batch.wanted)


def most_different_first(distances: Tensor, present: Tensor, count: int) -> Tensor:
    """Chooses groups one after the other, each as far as possible from those before.

    Args:
        distances: (B, N, N), symmetric.
        present: (B, N) bool; other groups are chosen last.
        count: number of groups that are chosen.

    Returns:
        (B, N): 0 for the first, -1 for the second and so on; -N for groups that were not chosen.
    """
    batch, groups = present.shape
    scores = torch.full((batch, groups), -float(groups), device=distances.device)
    itself = torch.eye(groups, dtype=torch.bool, device=distances.device)
    absent = ~present[:, None] | ~present[:, :, None]
    nearest = distances.masked_fill(itself | absent, float("inf")).amin(-1)
    for place in range(min(count, groups)):
        open_ = present & (scores == -groups)
        chosen = nearest.masked_fill(~open_, float("-inf")).argmax(1, keepdim=True)
        # A sample with fewer groups than another has none left at some point: then nothing changes.
        values = scores.gather(1, chosen).masked_fill(open_.any(1, keepdim=True), -float(place))
        scores.scatter_(1, chosen, values)
        to_chosen = distances.gather(1, chosen[..., None].expand(-1, -1, groups))[:, 0]
        nearest = to_chosen if place == 0 else torch.minimum(nearest, to_chosen)
    return scores


register(Technique("divprune", DivPruneConfig, SCORER, STAGES, DivPruneScorer))
