"""The search for the number of an adaptive budget, on scores whose budgets are known by hand."""

from __future__ import annotations

import math

import pytest
import torch

from fastsam3d.cli.commands.mllm.search_budget import RULES
from fastsam3d.errors import UserError
from fastsam3d.mllm.budgets import ADAPTIVE, MASS
from fastsam3d.mllm.predictor.budget_search import search_budget, search_stored_budget
from fastsam3d.mllm.predictor.question_sets import question_set
from fastsam3d.mllm.predictor.stored_maps import StoredMaps

TENTHS = torch.tensor([4.0, 3.0, 2.0, 1.0]).log()
"""Logits whose shares are .4, .3, .2 and .1."""


@pytest.mark.parametrize(("target", "low", "high"), [(75, 0.0, 0.4), (50, 0.4, 0.7), (25, 0.7, 0.9), (0, 0.9, 1.0)])
def test_one_sample_by_hand(target, low, high):
    found = search_budget([TENTHS], None, target)
    assert low - 1e-5 <= found.value <= high + 1e-5
    assert found.percent == pytest.approx(target)
    assert found.fewest == found.most == round(4 * (1 - target / 100))


def test_equal_scores_leave_out_what_alpha_says():
    found = search_budget([torch.zeros(100), torch.zeros(100)], None, 79)
    assert found.percent == pytest.approx(79)
    assert 0.2 <= found.value <= 0.21 + 1e-5


def test_the_nearest_step_is_taken_where_the_target_lies_between():
    assert search_budget([TENTHS], None, 55).percent == pytest.approx(50)
    assert search_budget([TENTHS], None, 70).percent == pytest.approx(75)


def test_percentages_are_of_real_objects_and_of_each_sample():
    padded = torch.cat([torch.full((96,), 9.0), TENTHS])
    present = torch.arange(100) >= 96
    assert search_budget([padded], [present], 50).percent == pytest.approx(50)
    # At .5 the first keeps 2 of 4 and the second 5 of 10: 50 % each, whatever their sizes.
    found = search_budget([TENTHS, torch.zeros(10)], None, 50)
    assert found.percent == pytest.approx(50) and (found.fewest, found.most) == (2, 5)


def test_sets_count_alike_whatever_their_sizes():
    # One object of two equal ones stays below .5, both above: 50 % or 0. Of ten equal ones 90, 80, ... % are left out.
    samples = [torch.zeros(2)] * 9 + [torch.zeros(10)]
    sets = ["small"] * 9 + ["large"]
    assert search_budget(samples, None, 55, sets=sets).percent == pytest.approx((50 + 60) / 2)
    assert search_budget(samples, None, 53).percent == pytest.approx((9 * 50 + 80) / 10)


def test_stored_maps_say_their_sets_and_what_fills_up():
    small, large = question_set("small", [("s", str(n)) for n in range(9)]), question_set("large", [("s", "x")])
    maps = StoredMaps("logits", "last", "m", {n: torch.zeros(2) for n in range(9)}, (small, large))
    maps.add(9, torch.cat([torch.zeros(10), torch.full((5,), 7.0)]), torch.arange(15) < 10)
    # As above: the five that fill up hold most of a softmax, and do not count.
    assert search_stored_budget(maps, 55).percent == pytest.approx((50 + 60) / 2)
    maps.sets = ()
    assert search_stored_budget(maps, 53).percent == pytest.approx((9 * 50 + 80) / 10)


def test_masses_are_no_logits():
    masses = torch.tensor([0.04, 0.03, 0.02, 0.01])
    assert search_budget([masses], None, 50, MASS).value <= 0.7 + 1e-5
    assert math.isclose(search_budget([masses], None, 50, MASS).percent, 50)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([TENTHS], None, 80.0), "give 0 to 75.0 %"),
        (([], None, 50.0), "0 samples have scores"),
        (([TENTHS], [torch.ones(3).bool()], 50.0), "4 scores, and present has 3 values"),
        (([TENTHS], [torch.zeros(4).bool()], 50.0), "at least one object"),
        (([TENTHS], None, 50.0, "logits", ["a", "b"]), "2 names of data sets"),
        (([TENTHS], None, 50.0, "logits", None, "treshold"), "Did you mean threshold?"),
        (([TENTHS], None, 50.0, "order"), "scale 'order' give no shares of mass: give logits or mass"),
        (([TENTHS * float("nan")], None, 50.0), "not finite"),
        (([TENTHS - 5], None, 50.0, "mass"), "negative on the scale mass"),
    ],
)
def test_what_cannot_be_is_refused(arguments, words):
    with pytest.raises(UserError, match=words):
        search_budget(*arguments)


def test_the_threshold_of_a_wanted_percentage_by_hand():
    # Four masses .4 .3 .2 .1, whose multiples of the even share are 1.6, 1.2, .8 and .4: half stays from .8 to 1.2.
    masses = torch.tensor([4.0, 3.0, 2.0, 1.0])
    found = search_budget([masses], None, 50, MASS, rule="threshold")
    assert 0.8 <= found.value <= 1.2 and (found.rule, found.number, found.percent) == ("threshold", "times", 50)
    assert (found.fewest, found.most) == (2, 2)
    assert search_budget([masses], None, 0, MASS, rule="threshold").value <= 0.4
    assert search_budget([masses], None, 75, MASS, rule="threshold").value > 1.2
    with pytest.raises(UserError, match="cannot be left out"):
        search_budget([masses], None, 80, MASS, rule="threshold")


def test_the_command_offers_the_rules_that_there_are():
    assert tuple(ADAPTIVE) == RULES
