"""Rooms and questions that nothing was trained on, in batches that every row answers in the same way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fastsam3d.mllm.mini.budget_search import FEWEST, MOST
from fastsam3d.mllm.mini.prompts import ObservedRoom, observe
from fastsam3d.mllm.scenes.questions import Question, make_questions
from fastsam3d.mllm.scenes.rooms import Room, make_room
from fastsam3d.procedural import HELD_OUT_SEED


@dataclass(frozen=True)
class Asked:
    """A room and what is asked about it.

    Attributes:
        room: with the boxes that answers are judged by.
        observed: what the model reads.
        questions: about the room.
    """

    room: Room
    observed: ObservedRoom
    questions: list[Question]


def held_out_rooms(rooms: int, questions: int, seed: int) -> list[Asked]:
    """Makes rooms of `FEWEST` to `MOST` objects with questions of all kinds; equal arguments give equal results.

    Args:
        rooms: number of rooms.
        questions: number of questions about each room.
        seed: chooses the rooms and their questions.
    """
    rng = np.random.default_rng([seed, 3])
    asked = []
    for index in range(rooms):
        room = make_room(HELD_OUT_SEED + seed * 1_000_000 + index, int(rng.integers(FEWEST, MOST + 1)))
        asked.append(Asked(room, observe(room), make_questions(room, questions, room.seed)))
    return asked


def batches(asked: list[Asked]) -> Iterator[tuple[Asked, list[str]]]:
    """Gives one batch for each room: the room, and the texts of all of its questions."""
    for one in asked:
        yield one, [question.text for question in one.questions]
