"""The prompt of Chat-Scene: texts, objects, and in which order they come.

    begin, system and instruction | for each slot: name, 3D feature, 2D feature | end of the instruction | question

The texts are those that the published weights were trained with. Each piece is tokenised apart.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fastsam3d.errors import UserError
from fastsam3d.mllm.benchmarks.metrics.object_ids import object_token, rename_objects

HEAD = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions. The conversation centers around an indoor scene. Object information: ["
)
TAIL = "]. USER: "
TOKENS_PER_OBJECT = 3
"""Name, 3D feature, 2D feature."""


def question_text(prompt: str, answer: str | None = None) -> str:
    """The last piece of a prompt, as in the evaluation of Chat-Scene.

    The blank in front is not there in its training. Both blanks count: the last token of a prompt is a blank.

    Args:
        answer: a text that follows, for instance to see what it attends to; None: the model shall write it.
    """
    return f" {prompt} ASSISTANT: {answer or ''}"


def object_order(objects: int, seed: int | None = None, number: int = 0) -> list[int]:
    """Which object is at each slot of a prompt.

    Args:
        objects: slots.
        seed: None: object 0 is at slot 0, and so on, as in Fast3D. Otherwise a random order, as in Chat-Scene.
        number: of the question: each gets an order of its own.
    """
    if seed is None:
        return list(range(objects))
    # On the CPU whatever the device is: one seed gives the same order on every machine.
    generator = torch.Generator().manual_seed(seed + 1_000_003 * number)
    return torch.randperm(objects, generator=generator).tolist()


def check_order(order: Sequence[int], objects: int) -> list[int]:
    """The order as a list.

    Raises:
        UserError: it does not hold every object once.
    """
    if sorted(order) != list(range(objects)):
        raise UserError(f"an order of objects holds each number from 0 to {objects - 1} once: object_order makes one.")
    return list(order)


def with_slots(text: str, order: Sequence[int]) -> str:
    """A question whose names of objects are those of their slots.

    Raises:
        UserError: it names an object that the model has no name for.
    """
    slots = {number: slot for slot, number in enumerate(order)}

    def slot_of(number: int) -> int:
        if number not in slots:
            raise UserError(f"the question names {object_token(number)}, and there are {len(order)} objects from 0 on.")
        return slots[number]

    return rename_objects(text, slot_of)


def with_objects(text: str, order: Sequence[int]) -> str:
    """An answer whose names of slots are those of the objects in them; a slot that does not exist is left out."""
    return rename_objects(text, lambda slot: order[slot] if slot < len(order) else None)
