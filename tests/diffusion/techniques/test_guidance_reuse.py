from __future__ import annotations

import pytest
import torch
from technique_runs import SPARSE_GUIDED, SPARSE_TIMES, even

from fastsam3d.diffusion.techniques.guidance_reuse import GuidanceReuse, GuidanceReuseConfig
from fastsam3d.diffusion.vocabulary import GuidedVelocity, Step, Trajectory


def run(settings, delta, times=SPARSE_TIMES, guided=SPARSE_GUIDED, skip=()):
    """Guidance terms by step, and the steps whose unconditional pass ran."""
    policy = GuidanceReuse(GuidanceReuseConfig(enabled=True, **settings), Trajectory("sparse_structure", times, guided))
    deltas, both = {}, []
    for index in range(len(guided)):
        if index in skip:
            continue
        step = Step(index, times, guided)

        def evaluate(x, tokens=None, *, conditional_only=False, step=step):
            c = {"shape": torch.tensor([1.0])}
            if conditional_only or not step.is_guided:
                return GuidedVelocity(c)
            both.append(step.index)
            return GuidedVelocity(c, {"shape": torch.tensor([float(delta(step.time, step.index))])})

        result = policy.evaluate({"shape": torch.zeros(1)}, step, evaluate)
        if result.delta is not None:
            deltas[index] = result.delta["shape"].item()
            assert result.delta_is_forecast == (index not in both)
    return deltas, both


def test_every_third_unconditional_pass_runs_and_44_becomes_33():
    deltas, both = run({}, lambda t, j: j)
    assert both == [0, 1, 4, 7, 10, 13, 16]
    assert 25 + len(both) == 32  # evaluations, of 44
    assert [deltas[j] for j in range(8)] == [0, 1, 1, 1, 4, 4, 4, 7]  # held
    assert max(deltas) == 18  # and gone after the edge


def test_a_line_in_time_is_followed_exactly():
    deltas, _ = run({"order": 1}, lambda t, j: 3.0 - 2.0 * t)
    assert [deltas[j] for j in range(19)] == pytest.approx([3.0 - 2.0 * t for t in SPARSE_TIMES[:19]], abs=1e-5)


def test_refresh_of_one_is_the_plain_run():
    assert run({"refresh_every": 1}, lambda t, j: j)[1] == list(range(19))


def test_guidance_that_begins_late_starts_anew():
    guided = (True,) * 3 + (False,) * 3 + (True,) * 6
    assert run({}, lambda t, j: j, even(12), guided)[1] == [0, 1, 6, 7, 10]


def test_only_evaluated_steps_count():
    # A step cache above computes 0, 1, 4, 7, ...: every third of those that remain is refreshed.
    skip = {2, 3, 5, 6, 8, 9, 11, 12, 14, 15, 17, 18}
    assert run({}, lambda t, j: j, skip=skip)[1] == [0, 1, 10]
