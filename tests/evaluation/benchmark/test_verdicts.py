"""Verdicts: by operations, with separated intervals, on records whose figures are chosen."""

from __future__ import annotations

import pytest

from fastsam3d.evaluation.benchmark.verdicts import cost_of, front_table, verdicts, warning_of


def records(method, tflop, fidelity, cpu=1.0):
    return [
        {"method": method, "tflop": cost, "cpu_seconds": cpu, "fidelity_viou": value}
        for cost, value in zip(tflop, fidelity, strict=True)
    ]


OFF = records("off", [8.0] * 4, [1.0] * 4)
GOOD = records("good", [2.0] * 4, [0.97, 0.98, 0.97, 0.98])
"""Costs a quarter of `off`."""
BAD = records("bad", [4.0] * 4, [0.90, 0.91, 0.90, 0.91])
"""Costs twice as much as GOOD, and is 0.07 further away on every single object."""
NOISY = records("noisy", [4.0] * 4, [0.99, 0.90, 0.99, 0.90])
"""Further away than GOOD by the mean; which one is closer changes from object to object."""


def test_a_method_is_beaten_only_where_both_intervals_are_apart():
    found = {v.method: v for v in verdicts({"off": OFF, "good": GOOD, "bad": BAD, "noisy": NOISY})}
    assert (found["good"].beaten_by, found["good"].perhaps_by) == ((), ())
    assert (found["bad"].beaten_by, found["bad"].perhaps_by) == (("good",), ())
    assert (found["noisy"].beaten_by, found["noisy"].perhaps_by) == ((), ("good",))
    assert found["good"].cost_ratio == (4.0, 4.0, 4.0)
    assert found["good"].fidelity[0] == pytest.approx(0.975)


def test_order_begins_with_those_that_none_beats():
    assert [v.method for v in verdicts({"off": OFF, "bad": BAD, "noisy": NOISY, "good": GOOD})] == [
        "good",
        "noisy",
        "bad",
    ]


def test_costs_are_processor_seconds_where_operations_are_not_known():
    assert cost_of({"off": OFF, "good": GOOD}) == "tflop"
    unknown = [{**record, "tflop": None} for record in GOOD]
    assert cost_of({"off": OFF, "good": unknown}) == "cpu_seconds"
    # Wall-clock seconds play no part: a busy machine stretches them.
    slow = [{**record, "tflop": None, "seconds": 100.0} for record in records("slow", [1.0] * 4, [0.9] * 4, cpu=0.5)]
    (verdict,) = verdicts({"off": OFF, "slow": slow})
    assert verdict.cost_ratio[0] == 2.0


def test_table_names_the_cost_and_leaves_references_out():
    other = records("other_seed", [8.0] * 4, [0.5] * 4)
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in front_table(OFF + GOOD + BAD + other).splitlines()
    ]
    assert lines[0][1] == "fewer operations"
    assert [(line[0], line[1], line[3], line[4]) for line in lines[2:]] == [
        ("good", "4.00× (4.00–4.00)", "–", "–"),
        ("bad", "2.00× (2.00–2.00)", "good", "–"),
    ]


def test_few_objects_are_warned_of():
    assert warning_of(8) is None
    assert (warning_of(1) or "").startswith("only 1 object:")
    assert "objects=8 or more" in (warning_of(7) or "")
