"""What `acceleration.kept()` says of the last prompt, against choices made by hand."""

from __future__ import annotations

import math

import pytest
import torch
from tiny_language_models import prompts, tiny_model

import fastsam3d
from fastsam3d.mllm import VisualSpan
from fastsam3d.mllm.budgets import LOGITS, MASS, ORDER
from fastsam3d.mllm.dropping.choices import KeptGroups

transformers = pytest.importorskip("transformers", reason="transformers is not installed: pip install fastsam3d[mllm]")

SPANS = [VisualSpan(4, 4, 3), VisualSpan(2, 6, 3, mask=(True, True, False, True, True, True))]
SCORES = [[0.1, 0.4, 0.3, 0.2], [1, 7, 9, 3, 5, 2]]


def external(scale: str = LOGITS, **pruning):
    settings = {"enabled": True, "layer": 1, "budget": "share", "share": 0.5} | pruning
    return {"pruning": settings, "external": {"enabled": True, "scale": scale}}


def test_kept_groups_and_scores_of_each_sample():
    model, inputs = tiny_model(), prompts((40, 33))
    with fastsam3d.accelerate(model, external()) as acceleration:
        assert acceleration.kept() == []
        model.generate(**inputs, visual=SPANS, objects=SCORES, max_new_tokens=3, num_beams=2)
        (first,), (second,) = acceleration.kept()
    # Half of 4 groups, and half of the 5 that hold an object, rounded up: the highest scores.
    assert first.kept.tolist() == [False, True, True, False]
    assert second.kept.tolist() == [False, True, False, True, True, False]
    assert first.layer == second.layer == 1 and first.scale == LOGITS
    assert first.scores.tolist() == pytest.approx(SCORES[0])
    assert second.scores.tolist() == pytest.approx([1, 7, math.nan, 3, 5, 2], nan_ok=True)
    exponentials = [math.exp(score) for score in (1, 7, 3, 5, 2)]
    expected = [value / sum(exponentials) for value in exponentials]
    assert second.shares()[[0, 1, 3, 4, 5]].tolist() == pytest.approx(expected, rel=1e-5)
    assert second.shares()[2] == 0
    assert acceleration.kept()[0][0].kept.equal(first.kept)  # as the report, it stays after the removal


def test_masses_are_shares_as_they_are():
    model, inputs = tiny_model(), prompts((40,))
    with fastsam3d.accelerate(model, external(MASS, budget="mass", alpha=0.75)) as acceleration, torch.no_grad():
        model(**inputs, visual=VisualSpan(4, 4, 3), objects=[[0.2, 0.8, 0.6, 0.4]])
    ((record,),) = acceleration.kept()
    # 0.8 + 0.6 of 2.0 are 70 %, with 0.4 they are 90 %.
    assert record.kept.tolist() == [False, True, True, True]
    assert record.shares().tolist() == pytest.approx([0.1, 0.4, 0.3, 0.2])


def test_each_cut_has_its_record_and_what_left_has_no_score():
    model, inputs = tiny_model(layers=6), prompts((40, 33))
    settings = {"pruning": {"enabled": True, "layer": 1, "share": 0.5}, "pyramid": {"enabled": True, "cuts": 2}}
    with fastsam3d.accelerate(model, settings) as acceleration, torch.no_grad():
        model(**inputs, visual=VisualSpan(3, 8, 3))
    for records in acceleration.kept():
        assert [record.layer for record in records] == [1, 3]
        first, second = records
        assert (int(first.kept.sum()), int(second.kept.sum())) == (4, 2)
        assert not first.scores.isnan().any() and second.scores.isnan().equal(~first.kept)
        assert bool((second.kept <= first.kept).all())
        best = second.scores.nan_to_num(-1.0).topk(2).indices
        assert second.kept.nonzero().flatten().tolist() == sorted(best.tolist())


def test_a_prompt_without_spans_and_the_preset_off_have_no_records():
    model, inputs = tiny_model(), prompts((40,))
    with fastsam3d.accelerate(model, external()) as acceleration, torch.no_grad():
        model(**inputs, visual=SPANS[:1], objects=SCORES[:1])
        assert len(acceleration.kept()) == 1
        model(**inputs)
        assert acceleration.kept() == []
    with fastsam3d.accelerate(model, "off") as acceleration, torch.no_grad():
        model(**inputs, visual=SPANS[:1])
        assert acceleration.kept() == []


def test_scores_that_are_an_order_give_what_stays_the_same_share():
    kept = torch.tensor([True, False, True, False])
    scores = torch.tensor([-3.0, -9.0, -1.0, float("nan")])
    assert KeptGroups(2, kept, scores, ORDER).shares().tolist() == [0.5, 0, 0.5, 0]
    assert KeptGroups(2, kept & False, scores, ORDER).shares().tolist() == [0, 0, 0, 0]
