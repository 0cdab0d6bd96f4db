from __future__ import annotations

from fastsam3d.evaluation.benchmark.plots import tick_labels


def test_labels_that_would_touch_are_left_out():
    assert tick_labels([0.1, 0.25, 0.5, 1.0, 1.5, 3.0]) == ["0.1", "", "0.5", "1", "1.5", "3"]
    assert tick_labels([2, 3, 4, 5, 6]) == ["2", "3", "4", "5", "6"]
    # The one that is left out does not push out the next.
    assert tick_labels([0.0, 0.05, 0.1, 1.0]) == ["0", "", "0.1", "1"]
