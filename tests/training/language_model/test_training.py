"""The training run: it goes on where it stopped, and its rooms grow as it learns."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers")

from fastsam3d.training.language_model.curriculum import FADING, LARGEST, SMALLEST, Curriculum
from fastsam3d.training.language_model.options import LanguageModelOptions
from fastsam3d.training.language_model.training import rate_factor, train


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
        curriculum.follow({"unique": 0.0, "situated": 1.0})
    assert float(curriculum.largest) == SMALLEST and curriculum.aid == 1.0
    assert "relation" not in curriculum.kinds
    for _ in range(300):
        curriculum.follow({"unique": 1.0, "situated": 0.0})
    assert float(curriculum.largest) == LARGEST and "relation" in curriculum.kinds
    before = curriculum.aid
    for _ in range(FADING // 2):
        curriculum.follow({"unique": 0.0, "situated": 1.0})  # rooms do not shrink
    assert curriculum.aid == pytest.approx(before - 0.5)
    counts = [curriculum.objects(torch.Generator().manual_seed(seed)) for seed in range(200)]
    assert min(counts) >= LARGEST // 3 and max(counts) <= LARGEST


def test_the_learning_rate_warms_up_and_falls_at_the_end():
    assert rate_factor(0.0, 0) == pytest.approx(1 / 60)
    assert rate_factor(0.5, 1000) == 1.0
    assert rate_factor(1.0, 5000) == pytest.approx(0.03)
