"""Means and paired confidence intervals over objects."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from fastsam3d.basics.optional import optional_module


@dataclass(frozen=True)
class Interval:
    """Mean of paired differences with its confidence limits; count pairs were finite."""

    mean: float
    low: float
    high: float
    count: int

    def to_list(self) -> list[float]:
        """[low, high], for JSON."""
        return [self.low, self.high]


def paired_interval(values: ArrayLike, baseline: ArrayLike, confidence: float = 0.95) -> Interval:
    """Student's t interval for the mean of values - baseline, object by object.

    Pairs that are not finite are left out. With one pair the limits are infinite, with none everything is
    NaN.
    """
    difference = np.asarray(values, dtype=float) - np.asarray(baseline, dtype=float)
    difference = difference[np.isfinite(difference)]
    count = len(difference)
    if count == 0:
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    mean = float(difference.mean())
    if count == 1:
        return Interval(mean, float("-inf"), float("inf"), 1)
    student = optional_module("scipy.stats", "measuring", "bench").t
    half = float(student.ppf((1 + confidence) / 2, count - 1) * difference.std(ddof=1) / count**0.5)
    return Interval(mean, mean - half, mean + half, count)


def ratio_interval(
    baseline: ArrayLike, values: ArrayLike, confidence: float = 0.95, draws: int = 2000
) -> tuple[float, float]:
    """Bootstrap interval (percentiles, seeded) of sum(baseline) / sum(values) over paired objects."""
    slow, fast = np.asarray(baseline, dtype=float), np.asarray(values, dtype=float)
    if len(fast) < 2:
        return float("-inf"), float("inf")
    chosen = np.random.default_rng(0).integers(0, len(fast), (draws, len(fast)))
    ratios = slow[chosen].sum(1) / fast[chosen].sum(1)
    low, high = np.quantile(ratios, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def finite_mean(values: ArrayLike) -> float:
    """Mean of the finite values; NaN without any."""
    numbers = np.asarray(values, dtype=float)
    numbers = numbers[np.isfinite(numbers)]
    return float(numbers.mean()) if len(numbers) else float("nan")
