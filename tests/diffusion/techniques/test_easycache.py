from __future__ import annotations

import pytest
import torch
from technique_runs import even, sample

from fastsam3d.diffusion.registry import REGISTRY
from fastsam3d.diffusion.techniques.rivals.easycache import EasyCacheConfig

LATENT = {"stage": "structured_latent", "names": ("latent",), "times": even(25), "guided": (False,) * 25}


def run(function, settings=None, **kwargs):
    config = EasyCacheConfig(enabled=True, **{"first_steps": 1, **(settings or {})})
    make = REGISTRY["easycache"].make
    return sample(lambda trajectory: make(config, trajectory), function, **kwargs)


def growth(x, t, j):
    return x


def test_estimate_by_hand():
    """For v = x the sensitivity is 1. The increment v + x = 2 x_a stays, so a skipped step uses 2 x_a - x."""
    result = run(growth, {"latent_threshold": 0.1}, **LATENT)
    # err after a computed step: 0.04 at the first skip (|dx| = dt |v|), then dt |2 x_a - 1.04 x_a| = 0.0384: below
    # 0.1 together; a third would be 0.115.
    assert result.computed == [0, 1, 4, 7, 10, 13, 16, 19, 22, 24]
    x1 = 1.04
    assert result.values("latent")[2] == pytest.approx(2 * x1 - 1.04 * x1, rel=1e-5)


def test_increment_follows_the_direction_of_time():
    """Where v = 5 - x the sum v + x is constant, and the skipped run is exact; v - x goes astray."""

    def pull(x, t, j):
        return 5.0 - x  # v + x = 5 everywhere

    mended = run(pull, {"latent_threshold": 50.0}, **LATENT)
    assert mended.computed == [0, 1, 24]
    truth = [(5.0 - 1.0) * 0.96**j for j in range(25)]
    assert mended.values("latent") == pytest.approx(truth, rel=1e-4)
    wrong = run(pull, {"latent_threshold": 50.0, "increment": "v-x"}, **LATENT)
    assert abs(wrong.end["latent"].flatten()[0].item() - (5.0 - 4.0 * 0.96**25)) > 1.0


def test_threshold_zero_computes_everything():
    assert run(growth, {"latent_threshold": 0.0}, **LATENT).computed == list(range(25))


@pytest.mark.parametrize(("steps", "computed"), [(4, [0, 1, 3]), (12, [0, 1, 11]), (1, [0])])
def test_last_step_is_computed_at_any_count(steps, computed):
    settings = {"latent_threshold": 100.0}
    path = LATENT | {"times": even(steps), "guided": (False,) * steps}
    assert run(growth, settings, **path).computed == computed
    assert run(growth, settings | {"last_step": False}, **path).computed == [j for j in computed if j < 2]


def test_first_steps_mean_what_they_say():
    assert run(growth, {"latent_threshold": 100.0, "first_steps": 5}, **LATENT).computed == [0, 1, 2, 3, 4, 24]


def test_each_branch_keeps_its_own_increment():
    """Constant c and guidance: the delta stays while guidance is on and is gone after it, whatever is skipped."""
    result = run(lambda x, t, j: 2.0 - x, {"threshold": 100.0}, delta=lambda x, t, j: 3.0)
    assert result.computed == [0, 1, 24]
    x = torch.tensor(1.0)
    for j, v in enumerate(result.values("shape")):
        guided = 3.0 if j < 19 else 0.0
        assert v == pytest.approx(float(2.0 - x) + guided, abs=1e-4)
        x = x + (result.times[j + 1] - result.times[j]) * v


def test_guidance_that_begins_late_is_computed():
    guided = (False,) * 6 + (True,) * 6
    result = run(growth, {"threshold": 100.0}, delta=lambda x, t, j: 1.0, times=even(12), guided=guided)
    assert result.computed == [0, 1, 6, 11]


def test_distilled_mode_computes_every_step():
    assert run(growth, {"threshold": 100.0}, times=even(4), shortcut=True).computed == [0, 1, 2, 3]
