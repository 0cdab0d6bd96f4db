from __future__ import annotations

import math

import pytest
import torch

from fastsam3d.diffusion.techniques.adaptive_caching import AdaptiveCaching, AdaptiveCachingConfig
from fastsam3d.diffusion.vocabulary import GuidedVelocity, Step, Trajectory

TIMES = tuple(k / 25 for k in range(26))
GUIDED = tuple(t <= 0.5 for t in TIMES[:-1])


def run(config, function, guided=GUIDED, times=TIMES, delta=None):
    """Integrates dx/dt = function(x, t) under the policy. Gives end state, velocities and computed steps."""
    policy = AdaptiveCaching(config, Trajectory("structured_latent", times, guided))
    x, used, computed = torch.tensor([1.0, -2.0]), [], []
    for index in range(len(guided)):
        step = Step(index, times, guided)

        def evaluate(state, tokens=None, step=step):
            computed.append(step.index)
            c = {"latent": function(state["latent"], step.time)}
            g = {"latent": delta(step.time) * torch.ones(2)} if delta is not None and step.is_guided else None
            return GuidedVelocity(c, g)

        v = policy.velocity({"latent": x}, step, evaluate)["latent"]
        used.append(v)
        x = x + (step.next_time - step.time) * v
    return x, used, computed


def config(**values):
    return AdaptiveCachingConfig(enabled=True, **{"corrector": False, **values})


def growth(x, t):
    return x


def test_threshold_zero_computes_everything():
    assert run(config(threshold=0.0), growth)[2] == list(range(25))


def test_sensitivity_is_matched():
    # For v = x the change of the velocity equals the change of the state: k = 1 at any spacing of computed steps.
    policy = AdaptiveCaching(config(), Trajectory("structured_latent", TIMES, (False,) * 25))
    x = torch.tensor([1.0, -2.0])
    for index in range(10):
        v = policy.velocity(
            {"latent": x}, Step(index, TIMES, (False,) * 25), lambda s, tokens=None: GuidedVelocity(dict(s))
        )["latent"]
        x = x + 0.04 * v
        if index >= 1:
            assert policy.sensitivity == pytest.approx(1.0, abs=1e-5)


def test_a_large_threshold_is_held_by_the_cap_the_edge_and_the_end():
    computed = run(config(threshold=100.0, max_consecutive_skips=3), growth)[2]
    # Warm-up 0, 1; every fourth; the edge at 13 and the next; every fourth; the last.
    assert computed == [0, 1, 5, 9, 13, 14, 18, 22, 24]


@pytest.mark.parametrize("warmup", [2, 3, 5])
def test_warm_up_means_what_it_says(warmup):
    computed = run(config(threshold=100.0, warmup=warmup), growth)[2]
    assert computed[:warmup] == list(range(warmup))
    assert computed[warmup] == warmup + 3


def test_a_smaller_threshold_computes_more_and_errs_less():
    truth = run(config(threshold=0.0), growth)[0]
    counts, errors = [], []
    for threshold in (0.01, 0.06, 0.2):
        x, _, computed = run(config(threshold=threshold, max_consecutive_skips=20, order=0), growth)
        counts.append(len(computed))
        errors.append(float((x - truth).norm()))
    assert counts[0] > counts[1] > counts[2]
    assert errors[0] < errors[1] < errors[2]


def test_estimated_error_by_hand():
    # v = x, so |dx| / |v| = dt = 0.04 a step and k = 1: after a computed step the first skip has an estimate of
    # 0.04, the second 0.08 (a hold, order 0, keeps |v| and |dx| as they were).
    guided = (False,) * 25
    computed = run(config(threshold=0.1, max_consecutive_skips=20, order=0), growth, guided)[2]
    assert computed == [0, 1, 4, 7, 10, 13, 16, 19, 22, 24]


def test_linear_forecast_beats_a_hold():
    def bend(x, t):
        return torch.full((2,), math.exp(2 * t))

    truth = run(config(threshold=0.0), bend)[0]
    error = {
        order: float((run(config(threshold=100.0, order=order), bend)[0] - truth).norm())
        for order in (0, 1, 2)
    }
    assert error[2] < error[1] < 0.5 * error[0]


def test_guidance_term_is_forecast_apart_and_ends_at_the_edge():
    used = run(config(threshold=100.0), lambda x, t: torch.full((2,), 3.0), delta=lambda t: 1.0 + t)[1]
    for j, v in enumerate(used):
        expected = 3.0 + (1.0 + TIMES[j] if GUIDED[j] else 0.0)
        assert v[0].item() == pytest.approx(expected, abs=1e-5)


def test_a_state_that_stands_still_is_computed():
    computed = run(config(threshold=100.0), lambda x, t: torch.zeros(2))[2]
    assert computed == list(range(25))
