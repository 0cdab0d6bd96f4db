from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fastsam3d.diffusion.maths import History, dmd_forecast, hermite_forecast, hermite_terms, newton_forecast
from fastsam3d.sam3d.models.flow_matching import time_grid


def values(function, times):
    return [torch.tensor([function(float(t))], dtype=torch.float64) for t in times]


def test_newton_by_hand():
    # 1, 4, 9 at 1, 2, 3 is t^2; two samples make a line through (2, 4) and (3, 9).
    assert newton_forecast([1, 2, 3], values(lambda t: t * t, [1, 2, 3]), 5.0).item() == pytest.approx(25.0)
    assert newton_forecast([2, 3], values(lambda t: t * t, [2, 3]), 5.0).item() == pytest.approx(19.0)
    assert newton_forecast([3], values(lambda t: t * t, [3]), 5.0).item() == 9.0


def test_newton_refuses_lengths_that_differ():
    with pytest.raises(ValueError, match="as many positions"):
        newton_forecast([0.0, 1.0], values(float, [0.0]), 2.0)


@pytest.mark.parametrize("function", [lambda t: t, lambda t: t**3, math.exp])
def test_sign_and_order_on_an_uneven_grid(function):
    times = np.array(time_grid(25, 3.0))
    errors = []
    for order in (0, 1, 2):
        nodes = [10, 13, 16][2 - order :]
        forecast = newton_forecast([times[j] for j in nodes], values(function, times[nodes]), times[17])
        errors.append(abs(forecast.item() - function(times[17])))
    # Each order beats the one below; a sign error would make the linear one worse than a hold.
    assert errors[1] < 0.5 * errors[0]
    assert errors[2] < 0.5 * errors[1] or errors[2] < 1e-12


def history(function, indices, times):
    result = History(3)
    for j in indices:
        result.add(j, float(times[j]), {"shape": torch.tensor([function(float(times[j]))])})
    return result


def test_linear_in_time_is_exact_by_time_and_wrong_by_index():
    times = np.array(time_grid(25, 3.0))
    past = history(lambda t: 2.0 - 5.0 * t, [10, 13, 16], times)
    truth = 2.0 - 5.0 * times[17]
    assert past.forecast("shape", 17, times[17], 1).item() == pytest.approx(truth, abs=1e-6)
    assert abs(past.forecast("shape", 17, times[17], 1, axis="index").item() - truth) > 0.03


def test_index_and_time_advance_by_the_published_shares():
    # From 13 and 16 to 17 the rule per index advances 1/3 of the last change, the rule in time 0.399.
    times = np.array(time_grid(25, 3.0))
    past = History(2)
    past.add(13, times[13], {"a": torch.zeros(1)})
    past.add(16, times[16], {"a": torch.ones(1)})
    assert past.forecast("a", 17, times[17], 1, axis="index").item() - 1 == pytest.approx(0.333, abs=1e-3)
    assert past.forecast("a", 17, times[17], 1).item() - 1 == pytest.approx(0.399, abs=1e-3)


def test_history_keeps_fp32_copies_and_forgets():
    past = History(2)
    past.add(0, 0.0, {"a": torch.ones(2, dtype=torch.float16)})
    assert past.newest("a").dtype == torch.float32
    past.clear()
    assert len(past) == 0


@pytest.mark.parametrize(
    ("horizon", "terms"), [(1, (0.5, -0.25, -0.625)), (2, (1.0, 0.5, -0.5)), (3, (1.5, 1.75, 1.125))]
)
def test_hermite_terms(horizon, terms):
    assert hermite_terms(horizon, 3, 0.5) == pytest.approx(terms)


def test_hermite_forecast_divides_by_factorials():
    differences = [torch.tensor([v]) for v in (10.0, 1.0, 2.0, 6.0)]
    # 10 + 1 * 1 + 2 * 0.5 / 2 + 6 * (-0.5) / 6 at a horizon of 2
    assert hermite_forecast(differences, 2.0).item() == pytest.approx(11.0)


def damped(time, size=40):
    phase = torch.linspace(0.1, 2.9, size, dtype=torch.float64)
    return math.exp(-0.2 * time) * torch.cos(0.7 * time + phase) * 3 + 0.0 * phase


@pytest.mark.parametrize("horizon", [1.0, 1.0 / 3.0, 2.0 / 3.0, 1.5])
def test_dmd_continues_damped_cosines(horizon):
    forecast = dmd_forecast([damped(float(k)) for k in range(4)], horizon)
    assert torch.allclose(forecast, damped(3.0 + horizon), atol=1e-4)


def test_dmd_falls_back_to_the_newest():
    snapshots = [damped(float(k)) for k in range(3)]
    assert torch.equal(dmd_forecast(snapshots, 1.0), snapshots[-1])
    zeros = [torch.zeros(5)] * 4
    assert torch.equal(dmd_forecast(zeros, 1.0), zeros[0])
    broken = [torch.full((5,), float("nan"))] * 3 + [torch.ones(5)]
    assert torch.equal(dmd_forecast(broken, 1.0), torch.ones(5))


def test_dmd_limits_growth():
    growing = [torch.full((5,), 10.0**k, dtype=torch.float64) for k in range(4)]
    assert np.isfinite(dmd_forecast(growing, 3.0).numpy()).all()
    assert float(dmd_forecast(growing, 3.0).max()) <= 1000.0 * 1.05**3 + 1e-6
