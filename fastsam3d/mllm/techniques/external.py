"""Scores that the caller gives with each prompt, for instance maps that were computed before and stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastsam3d.acceleration.registry import Technique
from fastsam3d.acceleration.settings import TechniqueConfig, setting
from fastsam3d.errors import UserError
from fastsam3d.mllm.budgets import LOGITS, MASS
from fastsam3d.mllm.capabilities import SCORER, STAGES
from fastsam3d.mllm.registry import register
from fastsam3d.mllm.spans import Layout
from fastsam3d.mllm.vocabulary import Scorer, ScoringBatch


@dataclass(frozen=True)
class ExternalConfig(TechniqueConfig):
    """Settings of scores that the caller gives."""

    enabled: bool = setting(False, "Switches the technique.")
    scale: str = setting(
        LOGITS, "Scale of the scores, for an adaptive budget: logits, or mass (shares).", choices=(LOGITS, MASS)
    )


class ExternalScorer(Scorer):
    """Reads `objects`: a list of numbers for each sample, one for each of its groups."""

    def __init__(self, config: ExternalConfig) -> None:
        self.scale = config.scale  # type: ignore[misc]

    def score(self, batch: ScoringBatch) -> Tensor:
        return scores_given(batch.prompts.objects, batch.layout, self.scale)


def scores_given(objects: Sequence[Any] | None, layout: Layout, scale: str = LOGITS) -> Tensor:
    """Scores of the groups, (B, N) float32, from what a caller gives.

    Args:
        objects: a list of numbers for each sample, one for each of its groups.
        layout: of the samples.
        scale: of the scores, `LOGITS` or `MASS`.

    Raises:
        UserError: scores are missing or are no numbers; a sample has another number of scores than of groups; or the
            score of a group that is present is not finite, or is negative on the scale `MASS`.
    """
    samples = len(layout.present)
    if objects is None or len(objects) != samples or any(isinstance(row, Mapping) for row in objects):
        raise UserError(
            f"external scores are missing for a batch of {samples}: give a list of scores for each sample, "
            "acceleration.visual(spans, objects=scores)"
        )
    scores = torch.zeros(layout.present.shape)
    for row, of_row in enumerate(objects):
        try:
            given = torch.as_tensor(of_row, dtype=torch.float32).flatten().cpu()
        except (TypeError, ValueError, RuntimeError):
            raise UserError(
                f"the external scores of sample {row} are no list of numbers but a {type(of_row).__name__}: give one "
                "number for each group"
            ) from None
        expected = int(layout.groups[row])
        if len(given) != expected:
            raise UserError(
                f"sample {row} has {len(given)} external scores and {expected} groups in its spans: give as many"
            )
        there = given[layout.present[row, :expected].cpu()]
        if not bool(there.isfinite().all()):
            raise UserError(f"sample {row} has external scores that are not finite: give finite ones, or mask groups")
        if scale == MASS and bool((there < 0).any()):
            raise UserError(f"sample {row} has negative shares as external scores: logits need external.scale={LOGITS}")
        scores[row, : len(given)] = given
    return scores


register(Technique("external", ExternalConfig, SCORER, STAGES, ExternalScorer))
