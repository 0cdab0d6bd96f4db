"""The training run of the small language model: `python -m fastsam3d mllm train model`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from fastsam3d.mllm.mini import tokens
from fastsam3d.mllm.mini.model import ModelConfig, SceneLanguageModel
from fastsam3d.mllm.mini.prompts import HEAD
from fastsam3d.training.language_model.aids import (
    WATCHED,
    alignment_loss,
    attention_loss,
    initialise,
    watched_rows,
)
from fastsam3d.training.language_model.batches import Batch, make_batch
from fastsam3d.training.language_model.curriculum import Curriculum
from fastsam3d.training.language_model.options import LanguageModelOptions
from fastsam3d.training.language_model.packing import Packed, read_packed
from fastsam3d.training.loop import TrainingLoop
from fastsam3d.training.optimization import Budget, OptimizerGroup

ALIGNMENT, ATTENTION = 0.4, 0.5  # weights of the aids
BEFORE_OBJECTS = len(HEAD)


def rate_factor(progress: float, step: int) -> float:
    """Learning-rate factor: 60 steps of warm-up, then constant, linear to 3 % in the last 30 %."""
    return min((step + 1) / 60, 1.0, 0.03 + 0.97 * (1 - progress) / 0.3)


def read(
    model: SceneLanguageModel,
    batch: Batch,
    rows: Tensor | None = None,
    watched: Sequence[int] = (),
    averaged: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Packed:
    """Reads rooms and their questions, see `read_packed`."""
    head = torch.tensor(HEAD).expand(len(batch.rooms), -1)
    objects = model.object_tokens(batch.identifiers, batch.geometry, batch.appearance)
    prefix = torch.cat([model.embed(head), objects], dim=1)
    there = batch.words != tokens.PADDING
    return read_packed(model.language_model, prefix, model.embed(batch.words), there, rows, watched, averaged, dtype)


def answer_loss(model: SceneLanguageModel, packed: Packed, batch: Batch) -> tuple[Tensor, Tensor]:
    """The language loss on the answers, and (B, Q) bool: every token of the answer is the likeliest one."""
    counts = batch.answers >= 0
    logits = model.language_model.lm_head(packed.hidden[counts]).float()
    right = batch.answers[counts]
    wrong = torch.zeros(counts.shape, dtype=torch.bool)
    wrong[counts] = logits.argmax(-1) != right
    return functional.cross_entropy(logits, right), ~wrong.any(-1)


def train(options: LanguageModelOptions) -> None:
    """Trains the small language model, or goes on with an interrupted run."""
    generator = torch.Generator().manual_seed(options.seed)
    model, curriculum = SceneLanguageModel(ModelConfig()), Curriculum()
    initialise(model, generator)
    optimizer = OptimizerGroup(model, options.learning_rate, weight_decay=0.05)
    both = nn.ModuleDict({"model": model, "curriculum": curriculum})
    loop = TrainingLoop(
        "language model",
        Path(options.output),
        Budget(options.minutes, options.steps),
        both,
        optimizer,
        generator,
        log_every=20,
    )
    for progress in loop.steps():
        step = loop.budget.step
        batch = make_batch(
            (options.seed * 1_000_000 + step) * options.rooms,
            options.rooms,
            curriculum.objects(generator),
            options.questions,
            curriculum.kinds,
        )
        aid = curriculum.aid
        watched = WATCHED if aid else ()
        packed = read(model, batch, watched_rows(batch) if aid else None, watched, dtype=torch.bfloat16)
        language, right = answer_loss(model, packed, batch)
        alignment = alignment_loss(model, batch)
        attention = attention_loss(packed, batch, BEFORE_OBJECTS) if aid else None
        loss = language + ALIGNMENT * max(aid, 0.1) * alignment
        if attention is not None:
            loss = loss + ATTENTION * aid * attention
        loss.backward()
        optimizer.step(rate_factor(progress, step))
        by_kind = _by_kind(batch, right)
        curriculum.follow(by_kind)
        loop.record({"loss": language, "alignment": alignment, "attention": attention, "objects": curriculum.largest})
        loop.record(by_kind)


def _by_kind(batch: Batch, right: Tensor) -> dict[str, float]:
    """Share of right answers of each kind."""
    found: dict[str, list[bool]] = {}
    for asked, answers in zip(batch.questions, right.tolist(), strict=True):
        for question, answer in zip(asked, answers, strict=True):
            found.setdefault(question.kind, []).append(answer)
    return {kind: sum(answers) / len(answers) for kind, answers in found.items()}
