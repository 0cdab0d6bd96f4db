"""Batches of rooms and questions, as tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fastsam3d.mllm.mini import tokens
from fastsam3d.mllm.scenes.features import features_of
from fastsam3d.mllm.scenes.questions import Question, make_questions
from fastsam3d.mllm.scenes.rooms import Room, make_room
from fastsam3d.mllm.scenes.vocabulary import CLASSES
from fastsam3d.mllm.scenes.wording import identifier

MOST_ANCHORS = 2


@dataclass
class Batch:
    """B rooms of N objects with Q questions each.

    Attributes:
        rooms: the rooms.
        questions: (B, Q) of them.
        identifiers: (B, N).
        geometry, appearance: (B, N, inputs).
        words: (B, Q, L) tokens of question and answer, padded on the right.
        answers: (B, Q, L) the token that is to be said next; -1 where it does not matter.
        asked: (B, Q) place of the last token of the prompt, after which the answer begins.
        targets: (B, Q, N) bool: objects that the answer is about.
        anchors: (B, Q, 2) objects that others are compared with; -1 where there are fewer.
        described: (B, Q, 2) places of the words for them; 0 where there are fewer.
        told: (B, Q, A) objects that the words of the answer after its first are about, see `_told`; -1 where there is
            none. A is one less than the words of the longest answer.
    """

    rooms: list[Room]
    questions: list[list[Question]]
    identifiers: Tensor
    geometry: Tensor
    appearance: Tensor
    words: Tensor
    answers: Tensor
    asked: Tensor
    targets: Tensor
    anchors: Tensor
    described: Tensor
    told: Tensor


def make_batch(first_seed: int, rooms: int, objects: int, questions: int, kinds: Sequence[str] | None = None) -> Batch:
    """Makes rooms of the seeds from `first_seed` on, with questions of some kinds about each."""
    made = [make_room(first_seed + index, objects) for index in range(rooms)]
    asked = [make_questions(room, questions, room.seed, kinds) for room in made]
    questions = min(map(len, asked))
    asked = [of_room[:questions] for of_room in asked]
    observed = [features_of(room) for room in made]
    lines = [[_line(question) for question in of_room] for of_room in asked]
    length = max(len(line) for of_room in lines for line, _ in of_room)
    words = torch.full((rooms, questions, length), tokens.PADDING)
    answers = torch.full_like(words, -1)
    starts = torch.zeros(rooms, questions, dtype=torch.long)
    targets = torch.zeros(rooms, questions, objects, dtype=torch.bool)
    anchors = torch.full((rooms, questions, MOST_ANCHORS), -1)
    described = torch.zeros_like(anchors)
    about = [[_told(made[row], question) for question in of_room] for row, of_room in enumerate(asked)]
    told = torch.full((rooms, questions, max(len(line) for of_room in about for line in of_room)), -1)
    for row, of_room in enumerate(lines):
        for column, (line, start) in enumerate(of_room):
            words[row, column, : len(line)] = torch.tensor(line)
            answers[row, column, start : len(line) - 1] = torch.tensor(line[start + 1 :])
            starts[row, column] = start
            question = asked[row][column]
            targets[row, column, list(question.targets)] = True
            for number, anchor in enumerate(question.anchors):
                anchors[row, column, number] = anchor
                described[row, column, number] = line.index(_name(made[row], anchor))
            told[row, column, : len(about[row][column])] = torch.tensor(about[row][column])
    return Batch(
        made,
        asked,
        torch.stack([torch.from_numpy(room.identifiers) for room in made]),
        torch.stack([seen.geometry for seen in observed]),
        torch.stack([seen.appearance for seen in observed]),
        words,
        answers,
        starts,
        targets,
        anchors,
        described,
        told,
    )


def _name(room: Room, index: int) -> int:
    """The word for the class of an object."""
    return tokens.number_of(CLASSES[room.classes[index]].name)


def _told(room: Room, question: Question) -> list[int]:
    """The object that each word of the answer after the first is about: the one that it names; all else is about the
    only object of the question, if there is only one. -1: none."""
    named = {identifier(room.identifiers[index]): index for index in question.targets}
    only = question.targets[0] if len(question.targets) == 1 else -1
    return [named.get(word, only) for word in question.answer.split()[1:]]


def _line(question: Question) -> tuple[list[int], int]:
    """Tokens of question and answer, and the place of the last one before the answer."""
    prompt = [tokens.USER, *tokens.encode(question.text), tokens.ASSISTANT]
    return [*prompt, *tokens.encode(question.answer), tokens.END], len(prompt) - 1
