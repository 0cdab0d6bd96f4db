"""The question sets that stored maps belong to. Maps cannot be used with questions of another file.

One file can hold the maps of several sets. The number of a question in the file is its place in the list of its set,
plus the sizes of the sets before.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from fastsam3d.errors import UserError


@dataclass(frozen=True)
class QuestionSet:
    """Questions of one data set, in their order.

    Attributes:
        name: name of the set and its split, for instance "scanrefer_val".
        questions: number of questions.
        digest: hash of all scenes and questions in their order.
    """

    name: str
    questions: int
    digest: str


def question_set(name: str, questions: Iterable[tuple[str, str]]) -> QuestionSet:
    """Makes the question set of some questions.

    Args:
        name: of the set.
        questions: scene and text of each question.
    """
    digest, count = hashlib.sha256(), 0
    for scene, text in questions:
        digest.update(json.dumps([scene, text]).encode())
        count += 1
    return QuestionSet(name, count, digest.hexdigest()[:16])


def first_number(sets: Sequence[QuestionSet], wanted: QuestionSet) -> int:
    """Number of the first question of a set in a file of maps.

    Args:
        sets: all sets of the file.
        wanted: the set.

    Raises:
        UserError: the file has no such set, or has a set of this name with other questions.
    """
    first = 0
    for one in sets:
        if one == wanted:
            return first
        if one.name == wanted.name:
            raise UserError(
                f"the maps of {one.name} were made for {one.questions} other questions, not for the {wanted.questions} "
                "of this annotation file: make them again, or give the file that they were made for"
            )
        first += one.questions
    known = ", ".join(one.name for one in sets) or "of sets without a name"
    raise UserError(f"there are no maps of {wanted.name}; the maps are {known}: make those of {wanted.name} too")


def set_of(sets: Sequence[QuestionSet], number: int) -> str:
    """Name of the set that a question belongs to; "" where the sets do not say."""
    first = 0
    for one in sets:
        if first <= number < first + one.questions:
            return one.name
        first += one.questions
    return ""


def sets_from(values: Any) -> tuple[QuestionSet, ...]:
    """Reads sets from an entry of a file.

    Raises:
        ValueError: the entry does not hold sets, or two sets have the same name.
    """
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise ValueError("its sets of questions are no list")
    sets = tuple(QuestionSet(str(v["name"]), int(v["questions"]), str(v["digest"])) for v in values)
    if any(one.questions < 0 for one in sets) or len({one.name for one in sets}) != len(sets):
        raise ValueError("its sets of questions are not told apart")
    return sets
