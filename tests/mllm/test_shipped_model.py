"""The small model that ships: it answers, and the predictor keeps what its answers need."""

from __future__ import annotations

import pytest

pytest.importorskip("transformers")

import fastsam3d
from fastsam3d.evaluation.language_models.held_out import held_out_rooms
from fastsam3d.mllm import load_mllm
from fastsam3d.mllm.mini.loading import FOLDER, LANGUAGE_MODEL, PREDICTOR
from fastsam3d.mllm.mini.prompts import answer, observe
from fastsam3d.mllm.scenes.files import bundled_room, read_room

EASY = ("unique", "caption", "colour", "exists")


@pytest.fixture(scope="module")
def model():
    return load_mllm("small")


def test_a_question_about_the_bundled_room(model):
    # The room's file has a white lamp, <OBJ020>, in a corner on the left; the other lamps are right of the television.
    room, question = observe(read_room(bundled_room())), "the lamp left of the television"
    assert answer(model, [room], [question]) == ["<OBJ020>"]
    with fastsam3d.accelerate(model, "balanced") as acceleration:
        assert answer(model, [room], [question]) == ["<OBJ020>"]
        assert acceleration.kept()[0][-1].kept.sum() <= 10


def test_simple_questions_about_rooms_that_it_was_never_trained_on(model):
    right = {"off": 0, "gap_fixed_90": 0, "random_90": 0}
    asked = [
        (one.observed, question)
        for one in held_out_rooms(4, 9, seed=5)
        for question in one.questions
        if question.kind in EASY
    ]
    for preset in right:
        with fastsam3d.accelerate(model, preset):
            said = answer(model, [room for room, _ in asked], [question.text for _, question in asked])
        right[preset] = sum(text == question.answer for text, (_, question) in zip(said, asked, strict=True))
    assert len(asked) >= 12
    assert right["off"] >= len(asked) - 1 and right["gap_fixed_90"] >= len(asked) - 2
    assert right["random_90"] <= len(asked) * 0.7


def test_the_weights_are_small():
    assert sum((FOLDER / name).stat().st_size for name in (LANGUAGE_MODEL, PREDICTOR)) < 12 * 2**20
