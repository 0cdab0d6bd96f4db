"""Adams methods of variable step: weights by hand, exact on polynomials, and against scipy on small ODEs."""

import math
from itertools import pairwise

import pytest
import torch

from fastsam3d.diffusion.maths import AdamsIntegral, bent_to_edge, chosen_steps, integral_weights, limited


@pytest.mark.parametrize(
    ("nodes", "start", "end", "weights"),
    [
        # Euler: the last value, held.
        ([0.0], 0.0, 0.5, [0.5]),
        # Adams-Bashforth 2 on equal steps: h (3/2 f1 - 1/2 f0).
        ([0.0, 1.0], 1.0, 2.0, [-0.5, 1.5]),
        # The trapezoidal rule.
        ([0.0, 1.0], 0.0, 1.0, [0.5, 0.5]),
        # Adams-Bashforth 3 on equal steps: h (23 f2 - 16 f1 + 5 f0) / 12.
        ([0.0, 1.0, 2.0], 2.0, 3.0, [5 / 12, -16 / 12, 23 / 12]),
        # Adams-Moulton 3: h (5 f2 + 8 f1 - f0) / 12 over the last stretch.
        ([0.0, 1.0, 2.0], 1.0, 2.0, [-1 / 12, 8 / 12, 5 / 12]),
        # Adams-Bashforth 2 after a step of 1 and over a step of 2: h (1 + h / 2g) f1 - h^2 / 2g f0 with g 1, h 2.
        ([0.0, 1.0], 1.0, 3.0, [-2.0, 4.0]),
        # Nothing is integrated over nothing.
        ([0.0, 1.0], 1.0, 1.0, [0.0, 0.0]),
    ],
)
def test_weights_by_hand(nodes, start, end, weights):
    assert integral_weights(nodes, start, end) == pytest.approx(weights, abs=1e-12)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_weights_are_exact_on_polynomials_of_uneven_nodes(count):
    nodes = [0.1, 0.23, 0.31, 0.6][:count]
    for power in range(count):
        integral = (0.9 ** (power + 1) - 0.6 ** (power + 1)) / (power + 1)
        found = sum(w * t**power for w, t in zip(integral_weights(nodes, 0.6, 0.9), nodes, strict=True))
        assert found == pytest.approx(integral, rel=1e-9)


def test_weights_of_no_or_equal_nodes_are_refused():
    with pytest.raises(ValueError, match="nodes"):
        integral_weights([], 0.0, 1.0)
    with pytest.raises(ValueError, match="nodes"):
        integral_weights([0.5, 0.5], 0.0, 1.0)


def run(function, times, order, corrector, x=0.0, growth=100.0):
    """The state at the end of x' = function(t, x), with one evaluation a step."""
    integral = AdamsIntegral(order, corrector, growth)
    state = torch.tensor([x], dtype=torch.float32)
    for start, end in pairwise(times):
        for change in (integral.add(start, {"x": function(start, state)}), integral.advance(start, end)):
            state = state + change.get("x", 0.0)
    return float(state)


TIMES = [0.0, 0.1, 0.15, 0.4, 0.5, 0.8, 1.0]


def test_the_first_step_is_held_and_corrected_by_the_trapezoidal_rule():
    # f(t) = t: the first step adds 0 (held), the second 0.3 * (0.5 + 0.15) and the correction 0.5 * 0.5 / 2.
    integral = AdamsIntegral(2, 2, growth=100.0)
    one = torch.ones(1)
    assert integral.add(0.0, {"x": 0.0 * one}) == {}
    assert float(integral.advance(0.0, 0.5)["x"]) == 0.0
    # The correction is at most `growth` times what it corrects, which is nothing here.
    assert float(integral.add(0.5, {"x": 0.5 * one})["x"]) == 0.0
    integral = AdamsIntegral(2, 2, growth=100.0)
    integral.add(0.0, {"x": one})
    assert float(integral.advance(0.0, 0.5)["x"]) == pytest.approx(0.5)
    # f = 1 + t: trapezoid 0.5 * (1 + 1.5) / 2 = 0.625, which is 0.125 more than what was held.
    assert float(integral.add(0.5, {"x": 1.5 * one})["x"]) == pytest.approx(0.125)
    # The line through (0, 1) and (0.5, 1.5) from 0.5 to 0.8: 0.3 * 1.65.
    assert float(integral.advance(0.5, 0.8)["x"]) == pytest.approx(0.495)


@pytest.mark.parametrize(("order", "corrector", "degree"), [(1, 0, 0), (2, 2, 1), (2, 3, 1), (3, 3, 2)])
def test_polynomials_in_time_are_exact_after_correction(order, corrector, degree):
    def value(t):
        return sum((2.0 + k) * t**k for k in range(degree + 1))

    whole = sum((2.0 + k) / (k + 1) for k in range(degree + 1))
    # The first steps lack values: with the exact ones before the beginning they are exact as well.
    integral = AdamsIntegral(order, corrector, growth=100.0)
    state = torch.zeros(1)
    for t in (-0.3, -0.1):
        integral.add(t, {"x": torch.full((1,), value(t))})
    for start, end in pairwise(TIMES):
        for change in (integral.add(start, {"x": torch.full((1,), value(start))}), integral.advance(start, end)):
            state = state + change.get("x", 0.0)
    assert float(state) == pytest.approx(whole, rel=1e-5)


@pytest.mark.parametrize(("order", "corrector", "halved"), [(1, 0, 2.0), (2, 0, 4.0), (2, 2, 4.0), (3, 3, 8.0)])
def test_the_error_falls_by_the_order(order, corrector, halved):
    def decay(t, x):
        return -1.5 * x + math.cos(3 * t)

    scipy = pytest.importorskip("scipy.integrate", reason="compares with scipy")
    solved = scipy.solve_ivp(lambda t, x: -1.5 * x + math.cos(3 * t), (0, 1), [1.0], rtol=1e-10, atol=1e-12)
    exact = float(solved.y[0, -1])

    def error(steps):
        times = [(k / steps) / (1 + 2 * (1 - k / steps)) for k in range(steps + 1)]  # uneven, as a pipeline's
        return abs(run(decay, times, order, corrector, x=1.0) - exact)

    ratio = error(20) / error(40)
    assert ratio > 0.8 * halved


def test_as_many_evaluations_give_a_smaller_error_than_eulers_method():
    def pulled(t, x):
        return 2.0 * (math.sin(2 * t) - x)

    scipy = pytest.importorskip("scipy.integrate", reason="compares with scipy")
    solved = scipy.solve_ivp(lambda t, x: 2.0 * (math.sin(2 * t) - x), (0, 1), [1.0], rtol=1e-10, atol=1e-12)
    exact = float(solved.y[0, -1])
    times = [k / 20 for k in range(21)]
    euler, second = (abs(run(pulled, times, order, corrector, x=1.0) - exact) for order, corrector in ((1, 0), (2, 2)))
    assert second < 0.2 * euler


def test_correction_costs_nothing_and_makes_the_error_smaller():
    def decay(t, x):
        return -1.5 * x + math.cos(3 * t)

    fine = run(decay, [k / 400 for k in range(401)], 2, 2, x=1.0)
    times = [(k / 12) / (1 + 2 * (1 - k / 12)) for k in range(13)]
    plain, corrected = (abs(run(decay, times, 2, c, x=1.0) - fine) for c in (0, 2))
    assert corrected < plain


def test_several_predictions_are_corrected_together():
    # Held over two stretches, 0 to 0.2 and 0.2 to 0.5, then corrected over both: f = 1 + t, trapezoid of 0 and 0.5.
    integral = AdamsIntegral(1, 2, growth=100.0)
    integral.add(0.0, {"x": torch.ones(1)})
    assert float(integral.advance(0.0, 0.2)["x"]) == pytest.approx(0.2)
    assert float(integral.advance(0.2, 0.5)["x"]) == pytest.approx(0.3)
    assert float(integral.add(0.5, {"x": torch.full((1,), 1.5)})["x"]) == pytest.approx(0.125)


def test_nothing_is_known_before_the_first_value_and_after_clearing():
    integral = AdamsIntegral(2, 2)
    assert integral.advance(0.0, 1.0) == {}
    integral.add(0.0, {"x": torch.ones(1)})
    integral.advance(0.0, 0.5)
    integral.clear()
    assert len(integral) == 0
    assert integral.add(0.5, {"x": torch.ones(1)}) == {}


def test_growth_is_bounded_without_an_answer_to_the_host():
    reference = torch.tensor([3.0, 4.0])
    assert limited(torch.tensor([6.0, 8.0]), reference, 1.0).tolist() == pytest.approx([3.0, 4.0])
    assert limited(torch.tensor([0.6, 0.8]), reference, 1.0).tolist() == pytest.approx([0.6, 0.8])
    assert limited(torch.tensor([math.inf, 0.0]), reference, 1.0).tolist() == [0.0, 0.0]
    assert limited(torch.tensor([math.nan, 0.0]), reference, 1.0).tolist() == [0.0, 0.0]
    # A value that jumps from 1 to 100: the slope would take the next step to 199, the bound allows twice the value.
    integral = AdamsIntegral(2, 0, growth=1.0)
    integral.add(0.0, {"x": torch.ones(1)})
    integral.add(1.0, {"x": torch.full((1,), 100.0)})
    assert float(integral.advance(1.0, 5.0)["x"]) == pytest.approx(800.0)


def test_without_growth_a_stiff_quantity_stays_bounded():
    # x' = -9 x on steps of 0.2: Adams-Bashforth 2 is stable below 1 / 9 only, Euler's method below 2 / 9: it gives
    # (1 - 9 * 0.2)^50.
    def stiff(t, x):
        return -9.0 * x

    times = [0.2 * k for k in range(51)]
    assert abs(run(stiff, times, 2, 0, x=1.0, growth=1e9)) > 1e6
    assert run(stiff, times, 2, 0, x=1.0, growth=0.0) == pytest.approx(0.8**50, rel=1e-4)


@pytest.mark.parametrize("steps", [2, 5, 8, 11, 13, 17, 25])
@pytest.mark.parametrize(("rescale", "edge"), [(3.0, 0.5), (1.0, 0.5), (4.0, 0.4), (3.0, 0.25)])
def test_a_step_begins_where_guidance_ends(steps, rescale, edge):
    bend = bent_to_edge(steps, rescale, edge)
    times = [(k / steps) / (1 + (bend - 1) * (1 - k / steps)) for k in range(steps + 1)]
    nearest = min(times[1:-1], key=lambda t: abs(t - edge))
    assert edge - 1e-6 < nearest < edge
    assert bend > 0
    assert all(a < b for a, b in pairwise(times))


def test_the_bend_stays_near_what_was_wanted():
    # 17 steps, bend 3: the edge lies at s = 0.75, between steps 12 and 13; step 13 begins there at a bend of 13 / 4.
    assert bent_to_edge(17, 3.0, 0.5) == pytest.approx(3.25, abs=1e-4)
    assert bent_to_edge(1, 3.0, 0.5) == 3.0


def test_chosen_steps_are_nearest_to_a_grid_that_is_short_at_both_ends():
    even = [k / 10 for k in range(11)]
    assert chosen_steps(even, 5, 1.0, 0.0) == (0, 2, 4, 6, 8)
    # m = 3 s^2 - 2 s^3 at s 0.2 ... 0.8: 0.104, 0.352, 0.648, 0.896.
    assert chosen_steps(even, 5, 1.0, 1.0) == (0, 1, 4, 6, 9)
    # t = m / (1 + 2 (1 - m)) with m = s: 0.077, 0.182, 0.333, 0.571.
    assert chosen_steps(even, 5, 3.0, 0.0) == (0, 1, 2, 3, 6)
    assert chosen_steps(even, 99, 1.0, 0.5) == tuple(range(10))
    assert chosen_steps(even, 1, 1.0, 0.5) == (0,)


def test_the_bend_is_the_slope_in_lengths_of_the_newest_value():
    integral = AdamsIntegral(2)
    assert integral.bend() == math.inf
    integral.add(0.0, {"shape": torch.tensor([3.0, 0.0]), "layout": torch.tensor([1.0])})
    assert integral.bend() == math.inf
    # In 0.5 the shape changes by 4 of a length of 5: by 1.6 lengths a unit of time. The layout by 1 of 2: by 1.
    integral.add(0.5, {"shape": torch.tensor([3.0, 4.0]), "layout": torch.tensor([2.0])})
    assert integral.bend() == pytest.approx(1.6)
