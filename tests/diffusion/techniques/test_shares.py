"""Numbers of steps that are given as shares: one preset for pipelines of 12 and of 25 steps."""

from __future__ import annotations

import pytest

from fastsam3d.acceleration.presets import load_preset
from fastsam3d.acceleration.settings import count_of
from fastsam3d.diffusion.policies import Policies
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


@pytest.mark.parametrize(
    ("preset", "stage", "counts"),
    [
        # Of 25 steps as before these were shares.
        ("fast", SPARSE_STRUCTURE, {25: 10, 12: 5, 50: 20}),
        ("fast", STRUCTURED_LATENT, {25: 5, 12: 3, 50: 10}),
        ("fewer_steps", SPARSE_STRUCTURE, {25: 10, 12: 5, 50: 20}),
        ("fewer_steps", STRUCTURED_LATENT, {25: 11, 12: 5, 50: 22}),
        ("balanced", SPARSE_STRUCTURE, {25: 20, 12: 10, 50: 40}),
        ("balanced", STRUCTURED_LATENT, {25: 25, 12: 12, 50: 50}),  # its own grid, some steps of it computed
        ("balanced_12", SPARSE_STRUCTURE, {25: 25, 12: 12, 50: 50}),
        ("balanced_12", STRUCTURED_LATENT, {25: 17, 12: 8, 50: 34}),
    ],
)
def test_presets_take_shares_of_the_pipelines_own_steps(preset, stage, counts):
    policies = Policies(load_preset(preset))
    runner = StageRunner(EvaluationState(), StageReport(), lambda t: None, lambda t: None, **policies.step_count(stage))
    for own, expected in counts.items():
        assert runner.steps(own, lambda n: [j / n for j in range(n + 1)], ()) == expected


@pytest.mark.parametrize("preset", ["fast", "fewer_steps", "balanced_12"])
def test_presets_do_not_name_numbers_of_steps(preset):
    config = load_preset(preset)["fewer_steps"]
    for steps in (config.sparse_structure_steps, config.structured_latent_steps):
        assert steps < 1 or steps == 1000  # the pipeline's own


def test_what_is_no_share_is_said():
    for key, value in {"step_caching.stride": 1.5, "fewer_steps.sparse_structure_steps": 0}.items():
        with pytest.raises(UserError, match=key):
            load_preset("balanced", {key: value})
    with pytest.raises(UserError, match=r"step_caching\.stride is 1\.5: a whole number, or a share below 1, is needed"):
        load_preset("balanced", {"step_caching.stride": 1.5})
    assert "a share of the run's steps" in StepCachingConfig.describe()["stride"]
