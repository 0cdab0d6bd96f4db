"""Budgets against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from fastsam3d.mllm.budgets import LOGITS, MASS, Budget, shares_of_mass

QUARTERS = torch.tensor([[math.log(4), math.log(3), math.log(2), 0.0]])
"""Logits of the masses .4 .3 .2 .1."""
ALL = torch.ones(1, 4, dtype=torch.bool)


@pytest.mark.parametrize(("alpha", "count"), [(0.21, 1), (0.40, 1), (0.65, 2), (0.7, 2), (1.0, 4), (0.0, 1)])
def test_mass_keeps_the_smallest_set_that_reaches_alpha(alpha, count):
    assert Budget("mass", alpha=alpha).counts(QUARTERS, ALL).tolist() == [count]
    assert Budget("mass", alpha=alpha).counts(QUARTERS.exp() * 3, ALL, MASS).tolist() == [count]


@pytest.mark.parametrize(("times", "count"), [(0.0, 4), (0.4, 4), (0.41, 3), (1.0, 2), (1.2, 2), (1.21, 1), (9.0, 1)])
def test_a_threshold_keeps_what_holds_so_many_times_the_even_share(times, count):
    """The even share of four is .25, and 1.2 times that is .3."""
    assert Budget("threshold", times=times).counts(QUARTERS, ALL).tolist() == [count]
    assert Budget("threshold", times=times).counts(QUARTERS.exp() * 3, ALL, MASS).tolist() == [count]
    present = torch.tensor([[False, True, True, True]])  # 1/2, 1/3 and 1/6 of the mass, and the even share is 1/3
    assert Budget("threshold", times=1.0).chosen(QUARTERS, present).tolist() == [[False, True, True, False]]
    assert Budget("threshold").counts(QUARTERS, torch.zeros(1, 4).bool()).tolist() == [0]


def test_equal_logits_keep_the_share_alpha():
    assert Budget("mass", alpha=0.21).counts(torch.zeros(1, 100), torch.ones(1, 100).bool()).tolist() == [21]


def test_padding_objects_hold_no_mass_and_take_no_place():
    present = torch.tensor([[False, True, True, True]])
    assert shares_of_mass(QUARTERS, present, LOGITS).tolist()[0] == pytest.approx([0, 1 / 2, 1 / 3, 1 / 6])
    assert Budget("mass", alpha=0.5).chosen(QUARTERS, present).tolist() == [[False, True, False, False]]
    assert Budget("fixed", keep=9).chosen(QUARTERS, present).tolist() == [[False, True, True, True]]
    assert Budget("share", share=0.5).counts(QUARTERS, present).tolist() == [2]  # of 3, rounded from 1.5


def test_every_sample_has_a_budget_of_its_own():
    scores, present = QUARTERS.expand(3, 4), torch.tensor([[1, 1, 1, 1], [1, 0, 0, 0], [0, 0, 0, 0]]).bool()
    assert Budget("fixed", keep=2).counts(scores, present).tolist() == [2, 1, 0]
    assert Budget("mass", alpha=0.7).counts(scores, present).tolist() == [2, 1, 0]


def test_the_highest_stay_and_of_equal_ones_the_first():
    scores = torch.tensor([[1.0, 3.0, 2.0, 3.0], [0.0, 0.0, 0.0, 0.0]])
    chosen = Budget("fixed", keep=2).chosen(scores, torch.ones(2, 4).bool())
    assert chosen.tolist() == [[False, True, False, True], [True, True, False, False]]
