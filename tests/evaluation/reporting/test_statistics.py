from __future__ import annotations

import math

import pytest

from fastsam3d.evaluation.reporting.statistics import finite_mean, paired_interval, ratio_interval


def test_paired_interval_by_hand():
    # Differences 1, 2, 3: mean 2, standard error 1/sqrt(3), t(0.975, 2) = 4.302653.
    interval = paired_interval([11, 22, 33], [10, 20, 30])
    assert interval.mean == pytest.approx(2)
    assert interval.count == 3
    assert interval.to_list() == pytest.approx([2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5], abs=1e-5)


def test_few_or_broken_pairs():
    assert paired_interval([1.0, math.nan], [0.0, 1.0]).to_list() == [-math.inf, math.inf]
    assert math.isnan(paired_interval([], []).mean)
    assert finite_mean([1.0, math.nan, 3.0]) == 2
    assert math.isnan(finite_mean([]))


def test_ratio_of_sums_and_its_interval():
    assert ratio_interval([2.0, 4.0, 6.0], [1.0, 2.0, 3.0]) == pytest.approx((2, 2))
    low, high = ratio_interval([2.0, 4.0, 6.0, 3.0], [1.0, 1.0, 3.0, 2.0])
    assert 1.5 <= low < 15 / 7 < high <= 4
