"""Prompts of the small model: turns rooms and questions into embeddings, and answers into words.

<s> scene: [three tokens for each object] user: find the red chair assistant:
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastsam3d.acceleration.handle import acceleration_of
from fastsam3d.errors import UserError
from fastsam3d.mllm.hosts import recognised
from fastsam3d.mllm.mini import tokens
from fastsam3d.mllm.mini.model import GROUP, SceneLanguageModel
from fastsam3d.mllm.scenes.features import Features, features_of
from fastsam3d.mllm.scenes.rooms import Room
from fastsam3d.mllm.spans import VisualSpan

HEAD = (tokens.BEGIN, tokens.SCENE)
"""Tokens before those of the objects."""
LONGEST_ANSWER = 16  # tokens


@dataclass(frozen=True)
class ObservedRoom:
    """A room as the model sees it, with noisy features.

    Attributes:
        identifiers: (N,) identifiers of the objects, such as 12 for `<OBJ012>`.
        features: features of the objects.
        boxes: (N, 6) float32, see `Room`. The language model does not see them; predictors and scores use them.
    """

    identifiers: Tensor
    features: Features
    boxes: Tensor


@dataclass(frozen=True)
class RoomPrompts:
    """Prompts of B samples, padded on the left.

    Attributes:
        inputs: keyword arguments of the language model: `inputs_embeds` (B, S, D) and `attention_mask` (B, S).
        visual: where the objects of each sample are, for `acceleration.visual` or the keyword `visual`.
        objects: `{"boxes": (N, 6)}` of each sample, for the keyword `objects`.
    """

    inputs: dict[str, Tensor]
    visual: list[VisualSpan]
    objects: list[dict[str, Tensor]]


def observe(room: Room, seed: int | None = None) -> ObservedRoom:
    """Computes noisy features of the objects of a room.

    Args:
        room: with N objects.
        seed: seed of the noise; None: that of the room.
    """
    return ObservedRoom(torch.from_numpy(room.identifiers), features_of(room, seed), torch.from_numpy(room.boxes))


@torch.no_grad()
def build_prompts(model: SceneLanguageModel, rooms: Sequence[ObservedRoom], questions: Sequence[str]) -> RoomPrompts:
    """Builds one prompt for each question.

    Args:
        model: the model that gives the embeddings.
        rooms: the room of each question. The same room may come several times.
        questions: in words that the model knows.

    Raises:
        UserError: the numbers of rooms and questions differ, or a question has a word that the model does not know.
    """
    if len(rooms) != len(questions) or not rooms:
        raise UserError(f"{len(questions)} questions about {len(rooms)} rooms: give one room for each question")
    device = model.token_size.device
    objects = {id(room): _object_tokens(model, room) for room in rooms}
    rows = []
    for room, question in zip(rooms, questions, strict=True):
        asked = [tokens.USER, *tokens.encode(question), tokens.ASSISTANT]
        head, tail = (model.embed(torch.tensor(part, device=device)) for part in (list(HEAD), asked))
        rows.append(torch.cat([head, objects[id(room)], tail]))
    length = max(map(len, rows))
    embeds = rows[0].new_zeros(len(rows), length, rows[0].shape[1])
    mask = torch.zeros(len(rows), length, dtype=torch.long, device=device)
    for index, row in enumerate(rows):
        embeds[index, length - len(row) :] = row
        mask[index, length - len(row) :] = 1
    spans = [VisualSpan(len(HEAD), len(room.identifiers), GROUP) for room in rooms]
    inputs = {"inputs_embeds": embeds, "attention_mask": mask}
    return RoomPrompts(inputs, spans, [{"boxes": room.boxes} for room in rooms])


def answer(
    model: SceneLanguageModel, rooms: Sequence[ObservedRoom], questions: Sequence[str], **generation: Any
) -> list[str]:
    """Answers a batch of questions, in words.

    Args:
        model: accelerated or not.
        rooms, questions: as for `build_prompts`.
        generation: keyword arguments of `generate`, for instance `num_beams`.

    Raises:
        UserError: as for `build_prompts`.
    """
    prompts = build_prompts(model, rooms, questions)
    settings = {"max_new_tokens": LONGEST_ANSWER, "do_sample": False} | generation
    if acceleration_of(recognised(model)) is not None:
        settings |= {"visual": prompts.visual, "objects": prompts.objects}
    generated = model.language_model.generate(**prompts.inputs, **settings)
    return [tokens.decode(row) for row in generated.tolist()]


def _object_tokens(model: SceneLanguageModel, room: ObservedRoom) -> Tensor:
    device = model.token_size.device
    geometry, appearance = room.features.geometry.to(device), room.features.appearance.to(device)
    return model.object_tokens(room.identifiers.to(device), geometry, appearance)
