"""Which groups stayed at each cut of a prompt, and by which scores: what `acceleration.kept()` returns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from fastsam3d.mllm.budgets import ORDER, shares_of_mass


@dataclass(frozen=True)
class Choice:
    """What was chosen at one cut, for a batch of B samples.

    Attributes:
        layer: the first layer that does not see the other groups.
        kept: (B, N) bool: groups that stay.
        scores: (B, N) scores of the scorer.
        present: (B, N) bool: groups that were present before the cut.
        groups: (B,) number of groups in the spans of each sample.
        scale: of the scores, see `budgets`.
    """

    layer: int
    kept: Tensor
    scores: Tensor
    present: Tensor
    groups: Tensor
    scale: str


@dataclass(frozen=True)
class KeptGroups:
    """What was chosen at one cut, for one sample of N groups. Tensors are on the CPU.

    Attributes:
        layer: the first layer that does not see the other groups, counted from 0.
        kept: (N,) bool: groups that stay.
        scores: (N,) float32 scores of the scorer; NaN for padding objects and for groups that had left before.
        scale: of the scores, `LOGITS`, `MASS` or `ORDER` of `fastsam3d.mllm.budgets`.
    """

    layer: int
    kept: Tensor
    scores: Tensor
    scale: str

    def shares(self) -> Tensor:
        """Share of the mass that the scores give each group, (N,) float32; 0 where the score is NaN.

        Scores of the scale `ORDER` have no mass: then all groups that stay get the same share.
        """
        if self.scale == ORDER:
            return self.kept.float() / self.kept.sum().clamp(min=1)
        present = ~self.scores.isnan()
        return shares_of_mass(self.scores.nan_to_num(0.0)[None], present[None], self.scale)[0].float()


def kept_groups(choices: Sequence[Choice]) -> list[list[KeptGroups]]:
    """Turns the choices of a batch into one list for each sample, with one record for each cut, in order of layers.

    Args:
        choices: of the cuts of one batch.
    """
    if not choices:
        return []
    counts = choices[0].groups.tolist()
    return [[_of_sample(choice, row, count) for choice in choices] for row, count in enumerate(counts)]


def _of_sample(choice: Choice, row: int, count: int) -> KeptGroups:
    kept, scores, present = (part[row, :count].cpu() for part in (choice.kept, choice.scores, choice.present))
    return KeptGroups(choice.layer, kept, scores.float().masked_fill(~present, math.nan), choice.scale)
