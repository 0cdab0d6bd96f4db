"""Attention maps of the small model, made as they are needed: what its predictor is trained on."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fastsam3d.mllm.mini import tokens
from fastsam3d.mllm.mini.model import GROUP, SceneLanguageModel
from fastsam3d.mllm.mini.prompts import HEAD
from fastsam3d.mllm.predictor.batch import PredictorBatch
from fastsam3d.training.language_model.batches import Batch, make_batch
from fastsam3d.training.language_model.options import ANSWER, GENERATION, LAST, QUESTION
from fastsam3d.training.language_model.training import read


def maps_of_rooms(
    model: SceneLanguageModel,
    rows: str = LAST,
    rooms: int = 6,
    questions: int = 10,
    objects: tuple[int, int] = (20, 100),
) -> Callable[[int, int], tuple[PredictorBatch, Tensor]]:
    """Makes a source of training batches from procedural rooms.

    Args:
        model: whose attention is to be predicted.
        rows: one of `options.ROWS`.
        rooms, questions: of a batch, which holds rooms x questions prompts.
        objects: fewest and most of a room.

    Returns:
        `(seed, step) -> ` inputs of the predictor, and the map of each prompt (B, N), which sums to 1.
    """

    def source(seed: int, step: int) -> tuple[PredictorBatch, Tensor]:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        count = int(torch.randint(objects[0], objects[1] + 1, (), generator=generator))
        batch = make_batch((seed * 100_000 + step + 1) * rooms, rooms, count, questions)
        return predictor_inputs(model, batch), attention_maps(model, batch, rows)

    return source


@torch.no_grad()
def attention_maps(model: SceneLanguageModel, batch: Batch, rows: str) -> Tensor:
    """What the asked rows attend to, averaged over layers and heads, (B Q, N); each row sums to 1."""
    count = batch.targets.shape[-1]
    if rows == LAST:
        places, weights = batch.asked[..., None], torch.ones(*batch.asked.shape, 1)
    else:
        places = torch.arange(batch.words.shape[-1]).expand_as(batch.words)
        weights = _chosen(batch, rows).float()
    packed = read(model, batch, places, averaged=True, dtype=torch.bfloat16)
    assert packed.average is not None
    mean = (packed.average * (weights / weights.sum(-1, keepdim=True))[..., None]).sum(2)
    mass = mean[..., len(HEAD) : len(HEAD) + GROUP * count].unflatten(-1, (count, GROUP)).sum(-1).flatten(0, 1)
    return mass / mass.sum(-1, keepdim=True)


@torch.no_grad()
def predictor_inputs(model: SceneLanguageModel, batch: Batch) -> PredictorBatch:
    """What a predictor reads of these prompts, without their answers: B Q prompts."""
    questions, count = batch.words.shape[1], batch.targets.shape[-1]
    objects = model.object_tokens(batch.identifiers, batch.geometry, batch.appearance)
    visual = objects.unflatten(1, (count, GROUP)).repeat_interleave(questions, dim=0)
    longest = int(batch.asked.max()) + 1
    words = batch.words[..., :longest].flatten(0, 1)
    there = torch.arange(longest) <= batch.asked.flatten()[:, None]
    boxes = torch.stack([torch.from_numpy(room.boxes) for room in batch.rooms]).repeat_interleave(questions, dim=0)
    present = torch.ones(len(words), count, dtype=torch.bool)
    return PredictorBatch(visual, model.embed(words), present, there, boxes)


def _chosen(batch: Batch, rows: str) -> Tensor:
    """(B, Q, L) bool: rows that count."""
    columns, asked = torch.arange(batch.words.shape[-1]), batch.asked[..., None]
    there = (batch.words != tokens.PADDING) & (batch.words != tokens.END)
    if rows == QUESTION:
        return there & (columns > 0) & (columns < asked)
    if rows == ANSWER:
        return there & (columns > asked)
    if rows == GENERATION:
        last = (batch.answers >= 0).sum(-1, keepdim=True) + asked - 1  # it generates the end
        return (columns >= asked) & (columns < last)
    return there
