from __future__ import annotations

import itertools

import pytest

from fastsam3d.diffusion.maths import full_steps, guidance_edges, network_evaluations, three_phases
from fastsam3d.sam3d.models.flow_matching import time_grid

SPARSE_TIMES, LATENT_TIMES = time_grid(25, 3.0), time_grid(25, 1.0)


def guided_steps(times):
    return tuple(time <= 0.5 for time in times[:-1])


def test_plain_runs_need_44_and_38_evaluations():
    sparse = guided_steps(SPARSE_TIMES)
    latent = guided_steps(LATENT_TIMES)
    assert network_evaluations(range(25), sparse) == 44
    assert network_evaluations(range(25), latent) == 38
    assert guidance_edges(sparse) == (19,)
    assert guidance_edges(latent) == (13,)


def test_our_schedule():
    guided = guided_steps(SPARSE_TIMES)
    plan = full_steps(guided, stride=3, warmup=2)
    assert plan == (0, 1, 4, 7, 10, 13, 16, 19, 20, 23, 24)
    assert network_evaluations(plan, guided) == 18
    # n = 12 puts a step exactly on the edge, where it is still guided: the first unguided step is 10.
    assert full_steps(guided_steps(time_grid(12, 3.0)), 3, 2) == (0, 1, 4, 7, 10, 11)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 7, 25, 50, 101])
@pytest.mark.parametrize("stride", [1, 2, 3, 7])
def test_first_and_last_step_are_computed_at_any_count(steps, stride):
    plan = full_steps(guided_steps(time_grid(steps, 3.0)), stride, 2)
    assert plan[0] == 0
    assert plan[-1] == steps - 1
    assert all(b - a <= stride for a, b in itertools.pairwise(plan))
    if stride == 1:
        assert plan == tuple(range(steps))


def test_guidance_that_begins_late_has_its_edge_too():
    guided = (False,) * 6 + (True,) * 6
    assert {6, 7} <= set(full_steps(guided, 5, 1))


def test_three_phases_of_25_steps():
    assert three_phases(25) == (5, 19, 5)
