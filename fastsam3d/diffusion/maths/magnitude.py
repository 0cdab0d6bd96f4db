"""Sizes and distances of velocities and states, over all entries of all modalities.

Each function waits for a GPU once, however many numbers it needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

Values = Mapping[str, Tensor]
SMALLEST = 1e-12
"""Least size that anything is measured against."""


def mean_magnitude(values: Values) -> float:
    """Mean absolute value over all entries."""
    return _means(values.values())[0]


def mean_distance(a: Values, b: Values) -> float:
    """Mean absolute difference over all entries; both have the same modalities."""
    return _means(_differences(a, b))[0]


def relative_distance(a: Values, b: Values, reference: Values) -> float:
    """`mean_distance` of `a` and `b` over the `mean_magnitude` of `reference`."""
    distance, size = _means(_differences(a, b), reference.values())
    return distance / max(size, SMALLEST)


def sensitivity(outputs: tuple[Values, Values], inputs: tuple[Values, Values]) -> float | None:
    """`mean_distance` of two outputs over that of their inputs; None where the inputs are the same."""
    changed, moved = _means(_differences(*outputs), _differences(*inputs))
    return changed / moved if moved > 0 else None


def _differences(a: Values, b: Values) -> Iterable[Tensor]:
    return (a[name].float() - b[name].float() for name in a)


def _means(*groups: Iterable[Tensor]) -> list[float]:
    parts = [list(group) for group in groups]
    totals = torch.stack([torch.stack([part.float().abs().sum() for part in group]).sum() for group in parts])
    counts = [sum(part.numel() for part in group) for group in parts]
    return [total / count for total, count in zip(totals.tolist(), counts, strict=True)]
