from __future__ import annotations

import pytest

from fastsam3d.diffusion.maths.schedule import avoid_edge
from fastsam3d.diffusion.report import StageReport
from fastsam3d.diffusion.sites import EvaluationState
from fastsam3d.diffusion.stage_runner import StageRunner
from fastsam3d.sam3d.models.flow_matching import time_grid


@pytest.mark.parametrize(("asked", "given"), [(4, 5), (8, 9), (12, 13), (10, 10), (25, 25), (17, 17)])
def test_counts_with_a_step_on_the_edge_are_avoided_on_the_bent_grid(asked, given):
    assert avoid_edge(asked, lambda n: time_grid(n, 3.0), (0.0, 0.5)) == given


@pytest.mark.parametrize(("asked", "given"), [(10, 11), (11, 11), (25, 25), (1, 1)])
def test_counts_on_the_even_grid(asked, given):
    assert avoid_edge(asked, lambda n: [k / n for k in range(n + 1)], (0.0, 0.5)) == given


def test_no_edge_inside_changes_nothing():
    assert avoid_edge(8, lambda n: [k / n for k in range(n + 1)], (0.0, 1.0)) == 8


@pytest.mark.parametrize(("own", "used"), [(25, 17), (17, 17), (12, 12), (4, 4)])
def test_never_more_steps_than_the_pipeline_takes_itself(own, used):
    session = StageRunner(EvaluationState(), StageReport(), lambda _: None, lambda _: None, steps=17)
    assert session.steps(own, lambda n: [k / n for k in range(n + 1)], (0.0, 0.5)) == used
