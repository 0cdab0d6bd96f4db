"""Blends the Gaussians on many rays at once, front to back (Kerbl et al. 2023, equation 3)."""

from __future__ import annotations

import torch
from torch import Tensor

MOST_OPAQUE = 0.999
LEAST_OPAQUE = 1 / 255
"""Opacities on a ray: larger ones are lowered, smaller ones are not seen."""


def composite(ray: Tensor, alpha: Tensor, values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Blends values along rays.

    Args:
        ray: number of the ray of each entry `[P]`, ascending; the entries of a ray are in order from front to back.
        alpha: opacity of each entry on its ray `[P]`, at most `MOST_OPAQUE`.
        values: `[P, C]`.
        count: number of rays.

    Returns:
        (sums of the values times their weights `[count, C]`, sums of the weights `[count]`). The weight of an entry is
        its opacity times the light that the entries before it let through.
    """
    through = torch.log1p(-alpha.double())
    before = torch.cumsum(through, 0) - through
    first = torch.searchsorted(ray, torch.arange(count, device=ray.device))
    start = before[first.clamp(max=max(len(ray) - 1, 0))] if len(ray) else before.new_zeros(count)
    weight = alpha * torch.exp(before - start[ray]).to(alpha.dtype)
    sums = values.new_zeros(count, values.shape[1]).index_add_(0, ray, weight[:, None] * values)
    return sums, weight.new_zeros(count).index_add_(0, ray, weight)


def expand(counts: Tensor) -> tuple[Tensor, Tensor]:
    """Numbers the entries of groups of the given sizes `[N]`.

    Returns:
        (the group of each entry `[sum]`, its number in the group `[sum]`).
    """
    group = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)
    ends = torch.cumsum(counts, 0)
    return group, torch.arange(len(group), device=counts.device) - (ends - counts)[group]
