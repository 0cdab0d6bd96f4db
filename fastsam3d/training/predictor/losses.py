"""What a predictor of attention maps is trained by, and what says how good its ranking is.

Shapes: B prompts, N objects.
"""

from __future__ import annotations

import torch
from torch import Tensor

TOP = (5, 10, 20)
"""Sizes of the sets that are compared, as Fast3D does."""


def divergence(logits: Tensor, target: Tensor, present: Tensor) -> Tensor:
    """Kullback-Leibler divergence of the predicted shares of attention from the true ones, a mean over the prompts.

    Args:
        logits: (B, N).
        target: (B, N) attention that each object gets, up to a factor; not negative.
        present: (B, N) bool: other objects do not count.

    Returns:
        A float32 number. Prompts without any attention do not count.
    """
    shares = target.float().masked_fill(~present, 0.0)
    sums = shares.sum(1, keepdim=True)
    shares = shares / sums.clamp(min=torch.finfo(torch.float32).tiny)
    predicted = torch.log_softmax(logits.float().masked_fill(~present, float("-inf")), dim=1)
    predicted = predicted.masked_fill(~present, 0.0)
    terms = torch.special.xlogy(shares, shares) - shares * predicted
    counted = sums[:, 0] > 0
    return terms.sum(1).masked_fill(~counted, 0.0).sum() / counted.sum().clamp(min=1)


def overlap(logits: Tensor, target: Tensor, present: Tensor, count: int) -> Tensor:
    """How many of the truly most attended objects are among the predicted ones, a mean over the prompts, 0..1.

    Args:
        logits, target, present: as for `divergence`.
        count: size of both sets; all objects where there are fewer.
    """
    lowest = float("-inf")
    first, second = (_first(values.float().masked_fill(~present, lowest), count) for values in (logits, target))
    sizes = present.sum(1).clamp(min=1, max=count)
    return ((first & second & present).sum(1) / sizes).mean()


def _first(values: Tensor, count: int) -> Tensor:
    """Which objects are among the `count` largest, (B, N) bool."""
    chosen = values.topk(min(count, values.shape[1]), dim=1).indices
    return torch.zeros_like(values, dtype=torch.bool).scatter_(1, chosen, True)
