"""How many groups stay, and which: a fixed number, a share, or a number that depends on the scores of a sample.

The mass of a group is the attention that it gets, measured or predicted. The even share is 1 / number of groups.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

LOGITS, MASS, ORDER = "logits", "mass", "order"
"""Scales of scores. `LOGITS`: their softmax gives the shares of mass. `MASS`: they are these shares times any factor.
`ORDER`: only their order counts."""
ADAPTIVE = {"mass": "alpha", "threshold": "times"}
"""Rules by which the scores decide how many groups stay, and the name of the number that each rule uses."""
_ROUNDING = 1e-6
"""Sums of single-precision shares, such as .1 + .2, may be too small by this much."""


@dataclass(frozen=True)
class Budget:
    """How many of a sample's groups stay.

    Attributes:
        rule: "fixed": `keep` groups; "share": that share of the groups, rounded to the nearest; "mass": the smallest
            set whose share of the mass reaches `alpha` (SAP, the adaptive rule of Fast3D); "threshold": each group
            whose share is at least `times` the even share. The last two can differ: where four groups hold a quarter
            each, "mass" with an `alpha` of 0.5 keeps two of them, and "threshold" keeps all four.
        keep: number of groups, 1 or more.
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
            scale: of the scores, `LOGITS` or `MASS`; only the adaptive rules use it.

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
        """The groups that stay, (B, N) bool: those with the highest scores. Of equal scores, the first one stays.

        Args:
            scores, present, scale: as for `counts`.
        """
        masked = scores.float().masked_fill(~present, float("-inf"))
        order = masked.argsort(dim=1, descending=True, stable=True)
        places = torch.arange(order.shape[1], device=order.device).expand_as(order)
        rank = torch.empty_like(order).scatter_(1, order, places)
        return (rank < self.counts(scores, present, scale)[:, None]) & present


def shares_of_mass(scores: Tensor, present: Tensor, scale: str) -> Tensor:
    """Share of the mass that each group holds, (B, N) float64; 0 for a group that is not present.

    Each row sums to 1, or to 0 where no group has any mass.

    Args:
        scores: (B, N); of the scale `MASS` they are not negative.
        present: (B, N) bool.
        scale: `LOGITS` or `MASS`.
    """
    if scale == LOGITS:
        return torch.softmax(scores.double().masked_fill(~present, float("-inf")), dim=1).nan_to_num(0.0)
    mass = scores.double().clamp(min=0).masked_fill(~present, 0.0)
    return mass / mass.sum(1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
