from __future__ import annotations

import pytest
import torch
from technique_runs import SPARSE_GUIDED as GUIDED
from technique_runs import SPARSE_TIMES as TIMES

from fastsam3d.acceleration.presets import load_preset
from fastsam3d.diffusion.techniques.step_caching import StepCaching, StepCachingConfig
from fastsam3d.diffusion.vocabulary import GuidedVelocity, Step, Trajectory
from fastsam3d.sam3d.models.flow_matching import time_grid


def run(config, conditional, unconditional=None, strength=0.0, times=TIMES, guided=GUIDED, shortcut=False):
    """Velocities of a run whose network is given by functions of (time, modality); also the computed steps."""
    names = ("shape", "translation")
    policy = StepCaching(config, Trajectory("sparse_structure", times, guided, shortcut))
    computed, used = [], []
    for index in range(len(guided)):
        step = Step(index, times, guided)

        def evaluate(x, tokens=None, step=step):
            computed.append(step.index)
            c = {name: torch.tensor([conditional(step.time, name)]) for name in names}
            if not step.is_guided or unconditional is None:
                return GuidedVelocity(c)
            u = {name: torch.tensor([unconditional(step.time, name)]) for name in names}
            return GuidedVelocity(c, {name: strength * (c[name] - u[name]) for name in names})

        used.append(policy.velocity({name: torch.zeros(1) for name in names}, step, evaluate))
    return used, computed


def config(**values):
    return StepCachingConfig(enabled=True, **{"stride": 3, "warmup": 2, "corrector": False, **values})


def test_computed_steps_follow_the_plan():
    _, computed = run(config(), lambda t, name: 1.0)
    assert computed == [0, 1, 4, 7, 10, 13, 16, 19, 20, 23, 24]


def test_linear_velocity_is_reproduced_exactly_in_time_only():
    def line(t, name):
        return 2.0 + 3.0 * t

    by_time, _ = run(config(momentum_beta=1.0), line)
    by_index, _ = run(config(momentum_beta=1.0, axis="index"), line)
    truth = [line(t, "shape") for t in TIMES[:-1]]
    assert [v["shape"].item() for v in by_time] == pytest.approx(truth, abs=1e-5)
    assert [v["translation"].item() for v in by_time] == pytest.approx(truth, abs=1e-5)
    assert max(abs(v["shape"].item() - w) for v, w in zip(by_index, truth, strict=True)) > 0.02


def test_quadratic_needs_order_two():
    def parabola(t, name):
        return 1.0 + t * t

    truth = [parabola(t, "shape") for t in TIMES[:-1]]
    error = {
        order: max(
            abs(v["shape"].item() - w)
            for j, (v, w) in enumerate(zip(run(config(order=order), parabola)[0], truth, strict=True))
            if 5 <= j < 19 or j > 23
        )
        for order in (0, 1, 2)
    }
    assert error[2] < 1e-5 < error[1] < error[0]


def test_layout_is_smoothed_between_anchor_and_line():
    def line(t, name):
        return 2.0 + 3.0 * t

    slots = {}
    for beta in (0.0, 0.5, 1.0):
        used, _ = run(config(momentum_beta=beta), line)
        slots[beta] = used[6]["translation"].item()  # step 6 is forecast from steps 1 and 4
        assert used[6]["shape"].item() == pytest.approx(line(TIMES[6], "shape"), abs=1e-5)
    anchor = line(TIMES[4], "translation")
    assert slots[0.0] == pytest.approx(anchor, abs=1e-6)
    assert slots[1.0] == pytest.approx(line(TIMES[6], "translation"), abs=1e-5)
    assert slots[0.5] == pytest.approx((slots[0.0] + slots[1.0]) / 2, abs=1e-6)


def test_guidance_edge():
    c, u, w = 1.0, 0.4, 7.0
    used, _ = run(config(), lambda t, n: c, lambda t, n: u, w)
    guided = (1 + w) * c - w * u
    for j, velocity in enumerate(used):
        expected = guided if GUIDED[j] else c
        assert velocity["shape"].item() == pytest.approx(expected, abs=1e-6)
        assert velocity["translation"].item() == pytest.approx(expected, abs=1e-6)


def test_forecasts_do_not_feed_the_history():
    # A cubic: if forecasts were stored, the values at computed steps' successors would depend on them.
    def cubic(t, name):
        return 1.0 + t**3

    used, _ = run(config(), cubic)
    t1, t2, t3 = TIMES[10], TIMES[13], TIMES[15]
    expected = cubic(t2, "") + (cubic(t2, "") - cubic(t1, "")) / (t2 - t1) * (t3 - t2)
    assert used[15]["shape"].item() == pytest.approx(expected, abs=1e-6)


def test_a_forecast_that_explodes_is_held():
    def crossing(t, name):  # 1 at step 13 and growing by some 40 a step: no forecast may be 3 times the last value
        return 1.0 + 1000.0 * (t - TIMES[13])

    used, computed = run(config(), crossing)
    assert computed[:6] == [0, 1, 4, 7, 10, 13]
    assert used[14]["shape"].item() == pytest.approx(1.0)
    trusting, _ = run(config(safety_factor=100.0), crossing)
    assert trusting[14]["shape"].item() == pytest.approx(crossing(TIMES[14], ""), rel=1e-4)


def test_a_slope_that_is_not_finite_is_not_followed():
    def broken(t, name):
        return float("nan") if abs(t - TIMES[4]) < 1e-9 else 1.0

    used, computed = run(config(), broken)
    assert 8 not in computed and used[8]["shape"].item() == 1.0  # from steps 4 (not a number) and 7


def test_shortcut_mode_computes_every_step():
    times, guided = (0.0, 0.25, 0.5, 0.75, 1.0), (False,) * 4
    _, computed = run(config(), lambda t, n: t, times=times, guided=guided, shortcut=True)
    assert computed == [0, 1, 2, 3]


@pytest.mark.parametrize("steps", [1, 2, 5, 12, 50])
def test_any_step_count(steps):
    times = tuple(time_grid(steps, 3.0))
    guided = tuple(time <= 0.5 for time in times[:-1])
    used, computed = run(config(), lambda t, n: 1.0, times=times, guided=guided)
    assert len(used) == steps
    assert computed[-1] == steps - 1


def test_a_stride_of_four_names_the_cliff():
    assert load_preset("paper").warnings() == []
    advice = load_preset("paper", {"step_caching.stride": 4}).warnings()
    assert len(advice) == 1
    assert "step_caching.stride is 4" in advice[0]
    assert "0.241" in advice[0]
    assert load_preset("off", {"step_caching.stride": 4}).warnings() == []


def integral(used):
    return {name: sum((TIMES[j + 1] - TIMES[j]) * v[name].item() for j, v in enumerate(used)) for name in used[0]}


def test_the_corrector_takes_forecast_errors_back():
    """Velocities that depend on time only: the state is their integral, and only forecasts make it wrong."""

    def parabola(t, name):
        return 1.0 + 4.0 * t * t

    truth = sum((TIMES[j + 1] - TIMES[j]) * parabola(TIMES[j], "") for j in range(25))
    plain = integral(run(config(), parabola)[0])
    corrected, computed = run(config(corrector=True), parabola)
    assert computed == run(config(), parabola)[1]  # it costs no evaluation
    # A parabola is interpolated exactly from the third computed step on. Before that, steps 2 and 3 are, by 0, 1 and 4.
    assert integral(corrected)["shape"] == pytest.approx(truth, abs=1e-5)
    assert integral(corrected)["translation"] == pytest.approx(truth, abs=1e-5)
    assert abs(plain["shape"] - truth) > 1e-3


def test_the_corrector_does_not_carry_guidance_over_its_edge():
    c, u, w = 1.0, 0.4, 7.0
    used, _ = run(config(corrector=True), lambda t, n: c, lambda t, n: u, w)
    for j, velocity in enumerate(used):
        assert velocity["shape"].item() == pytest.approx((1 + w) * c - w * u if GUIDED[j] else c, abs=1e-5)
