from __future__ import annotations

import itertools

import numpy as np
import pytest

from fastsam3d.forecast import full_steps, guidance_edges, network_evaluations, three_phases
from fastsam3d.forecast.released import guided_steps, released_full_steps, sparse_structure_times


def test_time_grid_has_the_published_values():
    times = sparse_structure_times()
    known = {0: 0, 1: 0.0137, 4: 0.0597, 7: 0.1148, 10: 0.1818, 13: 0.2653, 16: 0.3721, 18: 0.4615, 19: 0.5135,
             22: 0.7097, 24: 0.8889, 25: 1}  # fmt: skip
    assert np.allclose(times[list(known)], list(known.values()), atol=5e-5)


def test_plain_runs_need_44_and_38_evaluations():
    sparse = guided_steps(sparse_structure_times())
    latent = guided_steps(np.linspace(0, 1, 26))
    assert network_evaluations(range(25), sparse) == 44
    assert network_evaluations(range(25), latent) == 38
    assert guidance_edges(sparse) == (19,)
    assert guidance_edges(latent) == (13,)


@pytest.mark.parametrize(
    ("stride", "full", "evaluations"),
    [
        (2, [0, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 24], 24),
        (3, [0, 1, 4, 7, 10, 13, 16, 19, 22, 24], 17),
        (4, [0, 1, 5, 9, 13, 17, 21, 24], 14),
        (5, [0, 1, 6, 11, 16, 21, 24], 12),
    ],
)
def test_released_schedule(stride, full, evaluations):
    assert released_full_steps(25, stride) == full
    assert network_evaluations(full, guided_steps(sparse_structure_times())) == evaluations


def test_released_schedule_breaks_where_its_literal_does_not_fit():
    assert released_full_steps(12, 3) == [0, 1, 4, 7, 10]  # the last step is extrapolated
    assert len(released_full_steps(50, 3)) == 35  # every step from 24 on
    assert released_full_steps(4, 3) == [0, 1]


def test_our_schedule():
    guided = guided_steps(sparse_structure_times())
    plan = full_steps(guided, stride=3, warmup=2)
    assert plan == (0, 1, 4, 7, 10, 13, 16, 19, 20, 23, 24)
    assert network_evaluations(plan, guided) == 18
    # n = 12 puts a step exactly on the edge, where it is still guided: the first unguided step is 10.
    assert full_steps(guided_steps(sparse_structure_times(12)), 3, 2) == (0, 1, 4, 7, 10, 11)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 7, 25, 50, 101])
@pytest.mark.parametrize("stride", [1, 2, 3, 7])
def test_first_and_last_step_are_computed_at_any_count(steps, stride):
    plan = full_steps(guided_steps(sparse_structure_times(steps)), stride, 2)
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
