"""How many groups stay, and which: a fixed number, a share, or as many as the scores of a sample ask for."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

LOGITS, MASS, ORDER = "logits", "mass", "order"
"""Scales of scores: of which a softmax gives the mass, or which are shares of it up to a factor, or an order alone."""
ADAPTIVE = {"mass": "alpha", "threshold": "times"}
"""Rules by which the scores decide how many stay, and the number that belongs to each."""
_ROUNDING = 1e-6
"""Sums of single-precision shares such as .1 + .2 may fall short of what they mean by this much."""


@dataclass(frozen=True)
class Budget:
    """How many of a sample's groups stay.

    Attributes:
        rule: "fixed": `keep` groups; "share": that share of the groups, rounded to the nearest; "mass": the smallest
            set whose mass reaches `alpha` (the adaptive rule of Fast3D, SAP); "threshold": the groups whose mass is at
            least `times` the even share of all. The last two differ where a few groups hold nearly all of the mass:
            "mass" keeps only the first of them, "threshold" keeps each of them.
        keep: groups.
        share: 0..1.
        alpha: 0..1.
        times: 0 or more.
    """

    rule: str = "fixed"
    keep: int = 10
    share: float = 0.1
    alpha: float = 0.21
    times: float = 1.0

    def counts(self, scores: Tensor, present: Tensor, scale: str = LOGITS) -> Tensor:
        """Number of groups that stay in each sample: at least 1, at most those that are present.

        Args:
            scores: (B, N).
            present: (B, N) bool; other groups do not count.
            scale: of the scores, `LOGITS` or `MASS`.

        Returns:
            (B,) int64.
        """
        available = present.sum(1)
        if self.rule == "fixed":
            counts = torch.full_like(available, self.keep)
        elif self.rule == "share":
            counts = (available.double() * self.share + 0.5).floor().long()
        elif self.rule == "threshold":
            even = self.times / available.clamp(min=1).double()
            counts = ((shares_of_mass(scores, present, scale) >= even[:, None] - _ROUNDING) & present).sum(1)
        else:
            mass = shares_of_mass(scores, present, scale).sort(dim=1, descending=True).values.cumsum(1)
            counts = (mass < self.alpha - _ROUNDING).sum(1) + 1
        return torch.minimum(counts.clamp(min=1), available)

    def chosen(self, scores: Tensor, present: Tensor, scale: str = LOGITS) -> Tensor:
        """The groups that stay, (B, N) bool: those of the highest scores; of equal ones the first.

        Args:
            scores, present, scale: as for `counts`.
        """
        masked = scores.float().masked_fill(~present, float("-inf"))
        order = masked.argsort(dim=1, descending=True, stable=True)
        places = torch.arange(order.shape[1], device=order.device).expand_as(order)
        rank = torch.empty_like(order).scatter_(1, order, places)
        return (rank < self.counts(scores, present, scale)[:, None]) & present


def shares_of_mass(scores: Tensor, present: Tensor, scale: str) -> Tensor:
    """Share of the mass that each group holds, (B, N) float64, 0 for an absent one; each row sums to 1.

    Args:
        scores: (B, N); of the scale `MASS` they are not negative.
        present: (B, N) bool.
        scale: `LOGITS` or `MASS`.
    """
    if scale == LOGITS:
        return torch.softmax(scores.double().masked_fill(~present, float("-inf")), dim=1).nan_to_num(0.0)
    mass = scores.double().clamp(min=0).masked_fill(~present, 0.0)
    return mass / mass.sum(1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
