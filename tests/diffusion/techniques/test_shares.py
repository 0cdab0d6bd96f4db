"""Numbers of steps that are given as shares: one preset for pipelines of 12 and of 25 steps."""

from __future__ import annotations

import pytest

from fastsam3d.acceleration.presets import load_preset
from fastsam3d.acceleration.settings import count_of
from fastsam3d.diffusion.report import StageReport
from fastsam3d.diffusion.sites import EvaluationState
from fastsam3d.diffusion.stage_runner import StageRunner
from fastsam3d.diffusion.techniques.adaptive_caching import AdaptiveCaching, AdaptiveCachingConfig
from fastsam3d.diffusion.techniques.step_caching import StepCaching, StepCachingConfig
from fastsam3d.diffusion.vocabulary import SPARSE_STRUCTURE, STRUCTURED_LATENT, Trajectory
from fastsam3d.errors import UserError


def trajectory(steps, stage=SPARSE_STRUCTURE):
    return Trajectory(stage, tuple(j / steps for j in range(steps + 1)), (False,) * steps)


@pytest.mark.parametrize(
    ("value", "steps", "count"),
    [(4, 25, 4), (4, 12, 4), (0.16, 25, 4), (0.16, 12, 2), (0.13, 25, 3), (0.13, 12, 2), (0.01, 12, 1), (0.99, 3, 3)],
)
def test_a_number_below_one_is_a_share(value, steps, count):
    assert count_of(value, steps) == count


def test_warm_up_and_stride_follow_the_run():
    config = StepCachingConfig(enabled=True, warmup=0.16, stride=0.13)
    assert sorted(StepCaching(config, trajectory(25)).plan) == [0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24]
    assert sorted(StepCaching(config, trajectory(12)).plan) == [0, 1, 3, 5, 7, 9, 11]
    adaptive = AdaptiveCachingConfig(enabled=True, warmup=0.25)
    assert AdaptiveCaching(adaptive, trajectory(12, STRUCTURED_LATENT)).warmup == 3


@pytest.mark.parametrize(("own", "taken"), [(25, 17), (12, 8), (2, 1)])
def test_fewer_steps_are_a_share_of_the_pipelines_own(own, taken):
    runner = StageRunner(EvaluationState(), StageReport(), lambda t: None, lambda t: None, steps=0.68)
    assert runner.steps(own, lambda n: [j / n for j in range(n + 1)], ()) == taken


def test_what_is_no_share_is_said():
    for key, value in {"step_caching.stride": 1.5, "fewer_steps.sparse_structure_steps": 0}.items():
        with pytest.raises(UserError, match=key):
            load_preset("balanced", {key: value})
    with pytest.raises(UserError, match=r"step_caching\.stride is 1\.5: a whole number, or a share below 1, is needed"):
        load_preset("balanced", {"step_caching.stride": 1.5})
    assert "a share of the run's steps" in StepCachingConfig.describe()["stride"]
