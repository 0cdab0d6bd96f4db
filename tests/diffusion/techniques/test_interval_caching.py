"""TaylorSeer and HiCache on trajectories whose forecasts can be worked out by hand."""

from __future__ import annotations

import pytest
import torch
from technique_runs import even, sample

from fastsam3d.diffusion.registry import REGISTRY

LATENT = {"stage": "structured_latent", "names": ("latent",), "times": even(25)}
INTERVAL = ("taylorseer", "hicache")


def run(name, function, settings=None, **kwargs):
    technique = REGISTRY[name]
    config = technique.config(enabled=True, **(settings or {}))
    return sample(lambda trajectory: technique.make(config, trajectory), function, **kwargs)


@pytest.mark.parametrize("name", INTERVAL)
@pytest.mark.parametrize(
    ("steps", "interval", "computed"),
    [
        (25, 3, [0, 1, 4, 7, 10, 13, 16, 19, 22, 24]),
        (25, 6, [0, 1, 7, 13, 19, 24]),
        (12, 3, [0, 1, 4, 7, 10, 11]),
        (4, 3, [0, 1, 3]),
        (2, 3, [0, 1]),
        (1, 3, [0]),
    ],
)
def test_schedule_follows_from_the_number_of_steps(name, steps, interval, computed):
    settings = {"interval": interval, "latent_interval": interval, "first_steps": 2}
    assert run(name, lambda x, t, j: 1.0, settings, times=even(steps)).computed == computed
    assert run(name, lambda x, t, j: 1.0, settings, **LATENT | {"times": even(steps)}).computed == computed


@pytest.mark.parametrize("name", INTERVAL)
def test_without_the_last_step_the_interval_alone_decides(name):
    settings = {"latent_interval": 6, "last_step": False}
    assert run(name, lambda x, t, j: 1.0, settings, **LATENT).computed == [0, 1, 7, 13, 19]
    assert run(name, lambda x, t, j: 1.0, settings, **LATENT | {"times": even(20)}).computed == [0, 1, 7, 13, 19]


@pytest.mark.parametrize("name", INTERVAL)
def test_distilled_mode_computes_every_step(name):
    assert run(name, lambda x, t, j: t, times=even(4), guided=(False,) * 4, shortcut=True).computed == [0, 1, 2, 3]


@pytest.mark.parametrize("name", INTERVAL)
def test_objects_of_a_batch_do_not_mix(name):
    def field(x, t, j):
        return -x * (1 + t)

    starts = torch.tensor([1.0, -3.0]).reshape(2, 1, 1)
    both = run(name, field, batch=2, start=starts)
    for row, start in enumerate(starts):
        alone = run(name, field, start=start)
        assert torch.allclose(both.end["shape"][row], alone.end["shape"][0])


def test_taylor_is_exact_on_a_line_over_steps():
    result = run("taylorseer", lambda x, t, j: 2.0 - 0.5 * j)
    assert result.values("shape") == pytest.approx([2.0 - 0.5 * j for j in range(25)], abs=1e-5)


def test_taylor_layout_keeps_nine_tenths_of_the_last_computed_value():
    # Step 6 is forecast from 4 (value 0) and 1 (value 1.5): the line says -1, a tenth of that is used.
    result = run("taylorseer", lambda x, t, j: 2.0 - 0.5 * j)
    assert result.used[6]["translation"].flatten()[0].item() == pytest.approx(-0.1, abs=1e-6)


def test_taylor_of_order_two_by_hand():
    # j^3 at 1, 4, 7: first differences 21 and 93 a step, second (93 - 21) / 3 = 24; at 9: 343 + 93*2 + 24*4/2.
    result = run("taylorseer", lambda x, t, j: float(j**3), {"order": 2})
    assert result.used[9]["shape"].flatten()[0].item() == pytest.approx(343 + 186 + 48, rel=1e-6)


def test_an_odd_order_trajectory_shows_the_sign():
    """On a cubic a series that looks backwards is worse than a hold; one that looks ahead is better."""

    def errors(order):
        values = run("taylorseer", lambda x, t, j: 0.001 * j**3, {"order": order, "layout_anchor": 0.0})
        return [abs(v - 0.001 * j**3) for j, v in enumerate(values.values("shape"))]

    hold, line = errors(0), errors(1)
    assert all(b < 0.6 * a for a, b in zip(hold[8:24], line[8:24], strict=True) if a > 0.01)


def test_hermite_by_hand():
    # Order 2, sigma 0.5, on j^2 computed at 1, 5, 9: D1 = (81 - 25) / 4 = 14, D2 = (14 - 6) / 4 = 2.
    result = run("hicache", lambda x, t, j: float(j * j), {"interval": 4})
    assert result.computed[:4] == [0, 1, 5, 9]
    for m, h1, h2 in ((1, 0.5, -0.25), (2, 1.0, 0.5), (3, 1.5, 1.75)):
        assert result.used[9 + m]["shape"].flatten()[0].item() == pytest.approx(81 + 14 * h1 + h2, rel=1e-6)


def test_hermite_of_order_one_has_half_the_slope():
    result = run("hicache", lambda x, t, j: 1.0 * j, {"interval": 4, "order": 1})
    assert result.values("shape")[6:9] == pytest.approx([5.5, 6.0, 6.5], abs=1e-5)


@pytest.mark.parametrize("name", INTERVAL)
def test_guidance_edge_looks_like_motion_unless_kept_apart(name):
    delta = {"delta": lambda x, t, j: 7.0 * 0.6}
    settings = {"interval": 3, "order": 1}
    whole = run(name, lambda x, t, j: 1.0, settings, **delta).values("shape")
    share = 1.0 if name == "taylorseer" else 0.5
    for m in (1, 2):  # steps 16 and 19 are computed, and guidance ends between them
        assert whole[19 + m] - 1.0 == pytest.approx(-share * (m / 3) * 7.0 * 0.6, rel=1e-5)
    apart = run(name, lambda x, t, j: 1.0, settings | {"guidance_apart": True}, **delta)
    assert apart.values("shape") == pytest.approx([5.2] * 19 + [1.0] * 6, abs=1e-5)
    assert 19 in apart.computed
