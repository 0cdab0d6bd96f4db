"""The prompt of Chat-Scene: its texts, and the order of the objects.

    begin, system and instruction | for each slot: name, 3D feature, 2D feature | end of the instruction | question

The texts are those that the published weights were trained with. Each piece is tokenised on its own.
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

    It begins with a blank, which the training of Chat-Scene does not have. Without an answer it ends with a blank,
    which is the last token of the prompt.

    Args:
        prompt: the question.
        answer: a text that follows, for instance to read its attention; None: the model writes the answer.
    """
    return f" {prompt} ASSISTANT: {answer or ''}"


def object_order(objects: int, seed: int | None = None, number: int = 0) -> list[int]:
    """Returns the number of the object at each slot of a prompt.

    Args:
        objects: number of slots.
        seed: None: object 0 is at slot 0, and so on, as in Fast3D. A number: a random order, as in Chat-Scene.
        number: of the question. Each question has another random order.
    """
    if seed is None:
        return list(range(objects))
    # On the CPU whatever the device is: one seed gives the same order on every machine.
    generator = torch.Generator().manual_seed(seed + 1_000_003 * number)
    return torch.randperm(objects, generator=generator).tolist()


def check_order(order: Sequence[int], objects: int) -> list[int]:
    """Checks an order, and returns it as a list.

    Raises:
        UserError: it does not hold every number from 0 to `objects` - 1 once.
    """
    if sorted(order) != list(range(objects)):
        raise UserError(f"an order of objects holds each number from 0 to {objects - 1} once: object_order makes one.")
    return list(order)


def with_slots(text: str, order: Sequence[int]) -> str:
    """Replaces the names of objects in a question by the names of their slots.

    Raises:
        UserError: it names an object that the model has no name for.
    """
    slots = {number: slot for slot, number in enumerate(order)}

    def slot_of(number: int) -> int:
        if number not in slots:
            raise UserError(f"the question names {object_token(number)}, and objects have numbers below {len(order)}.")
        return slots[number]

    return rename_objects(text, slot_of)


def with_objects(text: str, order: Sequence[int]) -> str:
    """Replaces the names of slots in an answer by the names of their objects. Slots that do not exist are removed."""
    return rename_objects(text, lambda slot: order[slot] if slot < len(order) else None)
