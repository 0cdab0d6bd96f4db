from __future__ import annotations

import pytest
import torch
from technique_runs import even, sample

from fastsam3d.diffusion.techniques.exact_layout import ExactLayout, ExactLayoutConfig
from fastsam3d.diffusion.techniques.step_caching import StepCaching, StepCachingConfig
from fastsam3d.diffusion.vocabulary import GuidedVelocity, Step, Trajectory

CONFIG = StepCachingConfig(enabled=True, stride=3, warmup=2, edge_steps=2)


def run(times, guided, delta=2.0):
    """Velocities of a run whose layout follows t^3 and whose shape follows t; also what was asked, step by step."""
    trajectory = Trajectory("sparse_structure", times, guided)
    policy = ExactLayout(ExactLayoutConfig(enabled=True), trajectory, StepCaching(CONFIG, trajectory))
    used, asked = [], []
    for index in range(len(guided)):
        step = Step(index, times, guided)

        def evaluate(x, tokens=None, *, layout_only=False, step=step):
            assert list(x) == ["translation", "shape"]
            asked.append("layout" if layout_only else "all")
            c = {"translation": torch.tensor([step.time**3]), "shape": torch.tensor([step.time])}
            g = {name: torch.tensor([delta]) for name in c} if step.is_guided else None
            if layout_only:
                c.pop("shape")
            return GuidedVelocity(c, g and {name: g[name] for name in c})

        used.append(policy.velocity({"translation": torch.zeros(1), "shape": torch.zeros(1)}, step, evaluate))
    return used, asked


def test_layout_is_exact_at_every_step_and_shape_is_forecast():
    times = even(25)
    guided = tuple(t <= 0.5 for t in times[:-1])
    used, asked = run(times, guided)
    for j, v in enumerate(used):
        assert list(v) == ["translation", "shape"]
        assert v["translation"].item() == pytest.approx(times[j] ** 3 + 2.0 * guided[j], abs=1e-6)
        assert v["shape"].item() == pytest.approx(times[j] + 2.0 * guided[j], abs=1e-5)
    assert [j for j, what in enumerate(asked) if what == "all"] == [0, 1, 4, 7, 10, 13, 14, 17, 20, 23, 24]


def test_guidance_that_begins_on_a_skipped_step_is_evaluated_whole():
    class Skips:
        def velocity(self, x, step, evaluate):
            return evaluate(x).combined() if step.index == 0 else dict(x)

    trajectory = Trajectory("sparse_structure", even(4), (False, False, True, True))
    policy, asked = ExactLayout(ExactLayoutConfig(enabled=True), trajectory, Skips()), []
    for index in range(4):
        step = Step(index, trajectory.times, trajectory.guided)

        def evaluate(x, tokens=None, *, layout_only=False, step=step):
            asked.append("layout" if layout_only else "all")
            return GuidedVelocity(dict(x), dict(x) if step.is_guided else None)

        policy.velocity({"shape": torch.zeros(1), "scale": torch.zeros(1)}, step, evaluate)
    assert asked == ["all", "layout", "all", "layout"]


def test_a_policy_that_computes_everything_costs_no_layout_pass():
    def make(trajectory):
        every = StepCaching(StepCachingConfig(enabled=True, stride=1), trajectory)
        return ExactLayout(ExactLayoutConfig(enabled=True), trajectory, every)

    assert sample(make, lambda x, t, j: -x).computed == list(range(25))
