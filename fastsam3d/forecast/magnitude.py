"""Sizes and distances of velocities and states, over all entries of all modalities."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor


def mean_magnitude(values: Mapping[str, Tensor]) -> float:
    """Mean absolute value over all entries."""
    return _mean(values.values())


def mean_distance(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float:
    """Mean absolute difference over all entries; both have the same modalities."""
    return _mean(a[name].float() - b[name].float() for name in a)


def _mean(tensors: Iterable[Tensor]) -> float:
    parts = list(tensors)
    return float(sum(part.float().abs().sum() for part in parts)) / sum(part.numel() for part in parts)
