"""Writes rooms as text with one line for each object, and says which tokens belong to which line.

    table: blue                           a short line
    table: blue, large, at 1.2 -0.4       a full line: colour, size, centre x y on the floor in metres

Lines have different numbers of tokens, but all groups of a span have the same size. So each object is its own span.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastsam3d.errors import UserError
from fastsam3d.mllm.scenes.rooms import Room
from fastsam3d.mllm.scenes.vocabulary import CLASSES, COLOUR_NAMES, SIZE_NAMES
from fastsam3d.mllm.spans import VisualSpan

_SCENE = "<scene>"
"""Stands for the message of the user, to find out which text the chat template puts before and after it."""


@dataclass(frozen=True)
class TextPrompts:
    """Prompts of B samples, padded on the left.

    Attributes:
        inputs: keyword arguments of the language model: `input_ids` and `attention_mask`, (B, S).
        visual: spans of each sample, one for each object, for `acceleration.visual` or the keyword `visual`.
        objects: `{"boxes": (N, 6)}` of each sample, for the keyword `objects`.
    """

    inputs: dict[str, Tensor]
    visual: list[list[VisualSpan]]
    objects: list[dict[str, Tensor]]


def object_lines(room: Room, full: bool = False) -> list[str]:
    """Writes one line for each object, in the order of the room.

    Args:
        room: with N objects.
        full: also write the size and the place of each object.
    """
    lines = []
    for index in range(len(room)):
        line = f"{CLASSES[room.classes[index]].name}: {COLOUR_NAMES[room.colours[index]]}"
        if full:
            x, y = room.places[index]
            line += f", {SIZE_NAMES[room.sizes[index]]}, at {x:.1f} {y:.1f}"
        lines.append(line)
    return lines


def build_text_prompts(
    tokenizer: Any,
    rooms: Sequence[Room],
    questions: Sequence[str],
    begins: Sequence[str] | None = None,
    full: bool = False,
) -> TextPrompts:
    """Builds one prompt for each question: the lines of a room, then the question.

    Args:
        tokenizer: with a chat template, as `load_smollm` gives.
        rooms: the room of each question. The same room may come several times.
        questions: as text.
        begins: for each question, the words that the answer begins with, for instance "table:"; None: no words.
        full: also write the size and the place of each object.

    Raises:
        UserError: the numbers of rooms, questions and beginnings differ, or are 0.
    """
    begins = [""] * len(questions) if begins is None else begins
    if not rooms or not len(rooms) == len(questions) == len(begins):
        raise UserError(
            f"{len(questions)} questions and {len(begins)} beginnings of answers for {len(rooms)} rooms: give one of "
            "each for each room"
        )
    said = [{"role": "user", "content": _SCENE}]
    around = tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True)
    before, _, after = around.partition(_SCENE)
    head = _encoded(tokenizer, before)
    rows, visual = [], []
    for room, question, begin in zip(rooms, questions, begins, strict=True):
        # Line by line, so that no token is part of two lines. The tokens are those of the whole text all the same.
        lines = [_encoded(tokenizer, f"{line}\n") for line in object_lines(room, full)]
        tail = _encoded(tokenizer, f"\n{question}{after}{begin}")
        rows.append([*head, *(token for line in lines for token in line), *tail])
        visual.append(_spans(len(head), [len(line) for line in lines]))
    length = max(map(len, rows))
    ids = torch.full((len(rows), length), tokenizer.pad_token_id, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for index, row in enumerate(rows):
        ids[index, length - len(row) :] = torch.tensor(row)
        mask[index, length - len(row) :] = 1
    boxes = [{"boxes": torch.from_numpy(room.boxes)} for room in rooms]
    return TextPrompts({"input_ids": ids, "attention_mask": mask}, visual, boxes)


def _encoded(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _spans(start: int, sizes: Sequence[int]) -> list[VisualSpan]:
    """One span for each group, one after the other."""
    spans = []
    for size in sizes:
        spans.append(VisualSpan(start, 1, size))
        start += size
    return spans
