"""The five scores of answers that were judged by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastsam3d.evaluation.language_models.answering import Answers
from fastsam3d.evaluation.language_models.held_out import Asked
from fastsam3d.evaluation.language_models.scores import judge, scores_of
from fastsam3d.evaluation.measuring.methods import Method
from fastsam3d.mllm.mini.prompts import observe
from fastsam3d.mllm.scenes.questions import Question
from fastsam3d.mllm.scenes.rooms import Room


def room() -> Room:
    boxes = np.array([[x, 0.0, 0.5, 1.0, 1.0, 1.0] for x in (-2.0, 0.0, 0.2, 3.0)], dtype=np.float32)
    zeros = np.zeros(4, dtype=np.int64)
    return Room(1, 8.0, 6.0, zeros, zeros, zeros, boxes, np.array([3, 10, 11, 90]))


QUESTIONS = [
    Question("grounding", "unique", "", "<OBJ003>", (0,)),
    Question("grounding", "relation", "", "<OBJ010>", (1,)),
    Question("multi_grounding", "multi", "", "yes <OBJ003> and <OBJ090>", (0, 3)),
    Question("multi_grounding", "multi", "", "no", ()),
    Question("caption", "caption", "", "a small red chair", (0,)),
    Question("caption", "caption", "", "a large blue table", (1,)),
    Question("question", "colour", "", "red", (0,)),
    Question("question", "exists", "", "yes", (0,)),
    Question("question", "count", "", "two", (0, 1)),
    Question("situated", "situated", "", "red", (0,)),
]
SAID = [
    "<OBJ090>",
    "<OBJ011>",  # its box overlaps that of object 10 by 0.8 / 1.2, so that it is a hit
    "yes <OBJ003>",
    "yes <OBJ010>",
    "a small red chair",
    "a small red chair",
    "red",
    "no",
    "two",
    "red",
]


def answers(texts: list[str], rooms: int = 1) -> Answers:
    return Answers(Method("row", "off"), [texts] * rooms, {})


@pytest.fixture
def asked() -> list[Asked]:
    return [Asked(room(), observe(room()), QUESTIONS)]


def test_answers_are_judged_as_the_benchmarks_do(asked: list[Asked]):
    judged = judge(answers(SAID), asked)
    # F1 of one right object of two: 2 * 1 / (1 + 2). The second caption shares no rare word with its reference.
    assert judged.values.tolist() == pytest.approx([0, 1, 2 / 3, 0, 1, 0, 1, 0, 1, 1], abs=1e-6)
    assert judged.exact.tolist() == [False, False, False, False, True, False, True, False, True, True]


def test_the_mean_is_over_tasks_and_the_ratio_is_to_the_unpruned_score(asked: list[Asked]):
    right = judge(answers([question.answer for question in QUESTIONS]), asked)
    scores = scores_of(judge(answers(SAID), asked), right)
    expected = {"grounding": 50, "multi_grounding": 100 / 3, "caption": 50, "question": 200 / 3, "situated": 100}
    assert scores["scores"] == pytest.approx(expected)
    assert scores["score"] == scores["score_ratio"] == pytest.approx(60.0)
    assert scores["kinds"]["multi"] == 0.0 and scores["kinds"]["situated"] == 100.0
    assert scores_of(right, right)["score_ratio_ci"] == [100.0, 100.0]


def test_limits_come_from_whole_rooms(asked: list[Asked]):
    right, wrong = [question.answer for question in QUESTIONS], ["" for _ in QUESTIONS]
    two = asked * 2
    half = judge(Answers(Method("row", "off"), [right, wrong], {}), two)
    scores = scores_of(half, judge(answers(right, 2), two))
    # Of two drawn rooms both, one or none are right: the score is near 100, 50 or near 0 ("no" needs no object).
    assert scores["score_ratio_ci"][1] == pytest.approx(100.0)
    assert scores["score_ratio_ci"][0] < 15.0


def test_a_room_observed_twice_looks_the_same():
    first, second = observe(room()), observe(room())
    assert torch.equal(first.features.geometry, second.features.geometry)
    assert not torch.equal(observe(room(), seed=2).features.geometry, first.features.geometry)
