"""The training run: it goes on where it stopped, and its rooms grow as it learns."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers")

from fastsam3d.mllm.mini.model import ModelConfig, SceneLanguageModel
from fastsam3d.training.language_model.aids import (
    ASKING_LAYER,
    DESCRIBING_LAYER,
    PASSING,
    PASSING_LAYER,
    TELLING,
    WATCHED,
    attention_loss,
    watched_rows,
)
from fastsam3d.training.language_model.batches import make_batch
from fastsam3d.training.language_model.curriculum import (
    FADING,
    GROWTH,
    HOLD,
    KINDS,
    LARGEST,
    SIMPLE,
    SMALLEST,
    Curriculum,
)
from fastsam3d.training.language_model.options import LanguageModelOptions
from fastsam3d.training.language_model.packing import Packed
from fastsam3d.training.language_model.training import BEFORE_OBJECTS, rate_factor, read, train


def options(folder: Path, steps: int) -> LanguageModelOptions:
    return LanguageModelOptions(output=str(folder), steps=steps, rooms=1, questions=4)


def test_an_interrupted_run_ends_with_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import fastsam3d.training.language_model.training as module

    monkeypatch.setattr(module, "rate_factor", lambda progress, step: 0.5)  # of the whole run's length otherwise
    train(options(tmp_path / "whole", 4))
    train(options(tmp_path / "parts", 2))
    train(options(tmp_path / "parts", 4))
    whole, parts = (torch.load(tmp_path / name / "checkpoint.pt", weights_only=True) for name in ("whole", "parts"))
    assert whole["step"] == parts["step"] == 4
    assert all(torch.equal(value, parts["model"][name]) for name, value in whole["model"].items())


def test_rooms_grow_while_answers_are_right_and_the_aid_fades_afterwards():
    curriculum = Curriculum()
    for _ in range(200):
        curriculum.follow(dict.fromkeys(SIMPLE, 0.0) | {"situated": 1.0})
    assert float(curriculum.largest) == SMALLEST and curriculum.aid == 1.0
    assert "relation" not in curriculum.kinds
    for _ in range(300):
        curriculum.follow(dict.fromkeys(SIMPLE, 1.0) | {"situated": 0.0, "relation": 1.0})
    assert HOLD <= float(curriculum.largest) < HOLD * GROWTH and "relation" in curriculum.kinds
    for _ in range(300):
        curriculum.follow(dict.fromkeys(SIMPLE, 1.0) | {"situated": 0.0, "nearest": 1.0})
    assert float(curriculum.largest) == LARGEST
    before = curriculum.aid
    for _ in range(FADING // 2):
        curriculum.follow(dict.fromkeys(SIMPLE, 0.0) | {"situated": 1.0})  # rooms do not shrink
    assert curriculum.aid == pytest.approx(before - 0.5)
    counts = [curriculum.objects(torch.Generator().manual_seed(seed)) for seed in range(200)]
    assert min(counts) >= LARGEST // 3 and max(counts) <= LARGEST


def test_kinds_that_are_not_learned_come_twice():
    curriculum = Curriculum()
    for _ in range(100):
        curriculum.follow({"unique": 1.0, "colour": 1.0, "caption": 1.0, "exists": 0.5})
    assert sorted(curriculum.kinds) == sorted([*KINDS, "exists", *KINDS[4:]])
    for _ in range(100):
        curriculum.follow(dict.fromkeys(KINDS, 1.0))
    assert sorted(curriculum.kinds) == sorted(KINDS)


def test_the_attention_aid_of_questions_without_anchors_is_finite():
    model, batch = (
        SceneLanguageModel(ModelConfig(width=32, layers=4, heads=2, feed_forward=48)),
        make_batch(3, 1, 6, 4, ["unique"]),
    )
    assert not (batch.anchors >= 0).any()
    packed = read(model, batch, watched_rows(batch), WATCHED)
    assert attention_loss(packed, batch, BEFORE_OBJECTS).isfinite()


def test_the_attention_aid_by_hand():
    """One question. Of the three tokens of an object, the identifier does not count."""
    batch = make_batch(3, 1, 30, 1, ["nearest"])
    count, length = batch.targets.shape[-1], batch.words.shape[-1]
    looked = {layer: torch.zeros(1, 1, 3, 2 + 3 * count) for layer in WATCHED}
    words = {layer: torch.zeros(1, 1, 3, length) for layer in WATCHED}
    target, anchor = int(batch.targets[0, 0].nonzero()), int(batch.anchors[0, 0, 0])
    looked[ASKING_LAYER][0, 0, 0, 2 + 3 * target : 5 + 3 * target] = torch.tensor([0.25, 0.5, 0.25])
    looked[DESCRIBING_LAYER][0, 0, 1, 2 + 3 * anchor : 5 + 3 * anchor] = torch.tensor([0.75, 0.0, 0.25])
    words[PASSING_LAYER][0, 0, 0, int(batch.described[0, 0, 0])] = 0.1
    loss = attention_loss(Packed(torch.zeros(()), looked, words), batch, 2)
    expected = -math.log(0.75 + 1e-4) - math.log(0.25 + 1e-4) - PASSING * math.log(0.4 + 1e-3)  # .1 of .25
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    words[PASSING_LAYER][0, 0, 0, int(batch.described[0, 0, 0])] = 0.5  # more than enough
    loss = attention_loss(Packed(torch.zeros(()), looked, words), batch, 2)
    assert float(loss) == pytest.approx(-math.log(0.75 + 1e-4) - math.log(0.25 + 1e-4), rel=1e-2)


def test_later_words_of_a_caption_look_at_its_object():
    """"a small green rug at the front left": eight words, so seven later ones. Each needs one head of four there."""
    batch = make_batch(3, 1, 6, 1, ["caption"])
    count, later = batch.targets.shape[-1], len(batch.questions[0][0].answer.split()) - 1
    target = int(batch.targets[0, 0].nonzero())
    assert later == 7 and batch.told.tolist() == [[[target] * later]]
    asked = int(batch.asked[0, 0])
    assert watched_rows(batch)[0, 0].tolist() == [asked, 0, 0, *range(asked + 1, asked + 1 + later)]
    looked = {layer: torch.zeros(1, 1, 3 + later, 2 + 3 * count) for layer in WATCHED}
    words = {layer: torch.zeros(1, 1, 3 + later, batch.words.shape[-1]) for layer in WATCHED}
    looked[ASKING_LAYER][0, 0, 0, 2 + 3 * target + 1] = 1.0
    looked[ASKING_LAYER][0, 0, 3:, 2 + 3 * target : 5 + 3 * target] = torch.tensor([0.5, 0.0, 0.1])  # .1 of .25
    loss = attention_loss(Packed(torch.zeros(()), looked, words), batch, 2)
    assert float(loss) == pytest.approx(-TELLING * math.log(0.4 + 1e-3), rel=1e-3)


def test_words_of_a_list_are_about_the_objects_that_they_name():
    batch = make_batch(5, 4, 30, 8, ["multi"])
    seen = set()
    for row, asked in enumerate(batch.questions):
        for column, question in enumerate(asked):
            words, told = question.answer.split()[1:], batch.told[row, column].tolist()
            names = {f"<OBJ{batch.identifiers[row, index]:03d}>": index for index in question.targets}
            alone = question.targets[0] if len(question.targets) == 1 else -1
            assert told[: len(words)] == [names.get(word, alone) for word in words]
            assert set(told[len(words) :]) <= {-1}
            seen.add(len(names))
    assert {0, 1, 2} <= seen


def test_the_learning_rate_warms_up_and_falls_at_the_end():
    assert rate_factor(0.0, 0) == pytest.approx(1 / 60)
    assert rate_factor(0.5, 1000) == 1.0
    assert rate_factor(1.0, 5000) == pytest.approx(0.03)
