"""The five scores of a row, one for each task, and how much of the unpruned score is left.

As in the benchmarks that the tasks stand for: share of hits at IoU 0.5 (ScanRefer), F1 at IoU 0.5 (Multi3DRefer), CIDEr
(Scan2Cap), exact answers (ScanQA, SQA3D). All in percent; CIDEr, which reaches 10, times 10.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastsam3d.evaluation.language_models.answering import Answers
from fastsam3d.evaluation.language_models.held_out import Asked
from fastsam3d.mllm.benchmarks.grounding import f1_of_boxes
from fastsam3d.mllm.benchmarks.metrics.captions import cider_of_each
from fastsam3d.mllm.benchmarks.metrics.object_ids import named_objects
from fastsam3d.mllm.scenes.questions import CAPTION, GROUNDING, KINDS, MULTI_GROUNDING, TASKS, Question
from fastsam3d.mllm.scenes.rooms import IDENTIFIERS, Room

THRESHOLD = 0.5
DRAWS = 2000  # of the bootstrap over rooms


@dataclass(frozen=True)
class Judged:
    """Every answer of a row, judged.

    Attributes:
        rooms, kinds, tasks: (questions,) number of the room, kind and task of each question.
        exact: (questions,) bool: the answer is the right one, word for word.
        values: (questions,) 0..1: the score of this answer alone in its task; for a caption, its CIDEr / 10.
    """

    rooms: np.ndarray
    kinds: np.ndarray
    tasks: np.ndarray
    exact: np.ndarray
    values: np.ndarray


def judge(answers: Answers, asked: Sequence[Asked]) -> Judged:
    """Judges the answers of a row.

    Args:
        answers: of the row.
        asked: the rooms and their questions, in the same order.
    """
    rooms, questions, exact, values = [], [], [], []
    for number, (one, texts) in enumerate(zip(asked, answers.texts, strict=True)):
        for question, text in zip(one.questions, texts, strict=True):
            rooms.append(number)
            questions.append((question, text))
            exact.append(text == question.answer)
            values.append(_value(question, text, one.room))
    captions = [index for index, (question, _) in enumerate(questions) if question.task == CAPTION]
    said = [questions[index][1].split() for index in captions]
    references = [[questions[index][0].answer.split()] for index in captions]
    for index, value in zip(captions, cider_of_each(said, references) if captions else [], strict=True):
        values[index] = value / 10
    kinds, tasks = (np.array([getattr(q, name) for q, _ in questions]) for name in ("kind", "task"))
    return Judged(np.array(rooms), kinds, tasks, np.array(exact), np.array(values, dtype=float))


def _value(question: Question, text: str, room: Room) -> float:
    if question.task not in (GROUNDING, MULTI_GROUNDING):
        return float(text == question.answer)
    places = {int(number): index for index, number in enumerate(room.identifiers)}
    named = [places[number] for number in named_objects(text, IDENTIFIERS) if number in places]
    targets = [tuple(map(float, room.boxes[index])) for index in question.targets]
    if question.task == GROUNDING:
        named = named[:1]
    elif not question.targets:
        return float(not named)
    boxes = [tuple(map(float, room.boxes[index])) for index in named]
    return f1_of_boxes(boxes, targets, THRESHOLD)


def scores_of(judged: Judged, unpruned: Judged) -> dict[str, Any]:
    """The scores of a row beside the unpruned ones of the same questions.

    Returns:
        Percentages. "scores": of each task; "kinds": exact answers of each kind; "exact": mean of "kinds"; "score":
        mean of "scores"; "score_ratio": mean over the tasks of score / unpruned score. "exact_ci", "score_ci" and
        "score_ratio_ci": lower and upper limits of 95 % intervals, by a bootstrap over the rooms.
    """
    per_room = _sums_of_rooms(judged, judged.values, judged.tasks, TASKS)
    before = _sums_of_rooms(unpruned, unpruned.values, unpruned.tasks, TASKS)
    exact = _sums_of_rooms(judged, judged.exact.astype(float), judged.kinds, tuple(KINDS))
    drawn = np.random.default_rng(0).integers(0, len(per_room), (DRAWS, len(per_room)))

    def means(sums: np.ndarray, rooms: np.ndarray | slice) -> np.ndarray:
        total = sums[rooms].sum(axis=-3)
        return 100 * _share(total[..., 0], total[..., 1])

    def mean(values: np.ndarray) -> np.ndarray:
        there = np.isfinite(values)
        return _share(np.where(there, values, 0.0).sum(-1), there.sum(-1))

    def limits(values: np.ndarray) -> list[float]:
        return [float(limit) for limit in np.nanquantile(values, [0.025, 0.975])]

    whole = slice(None)  # few questions may leave a task or a kind out: its numbers are NaN and in no mean
    scores, kinds = means(per_room, whole), means(exact, whole)
    ratios = 100 * _share(scores, means(before, whole))
    drawn_scores, drawn_before = means(per_room, drawn), means(before, drawn)
    return {
        "scores": dict(zip(TASKS, map(float, scores), strict=True)),
        "kinds": dict(zip(KINDS, map(float, kinds), strict=True)),
        "exact": float(mean(kinds)),
        "exact_ci": limits(mean(means(exact, drawn))),
        "score": float(mean(scores)),
        "score_ci": limits(mean(drawn_scores)),
        "score_ratio": float(mean(ratios)),
        "score_ratio_ci": limits(mean(100 * _share(drawn_scores, drawn_before))),
    }


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """`part / whole`; NaN where the whole is 0."""
    return np.divide(part, whole, out=np.full(np.broadcast(part, whole).shape, np.nan), where=whole > 0)


def _sums_of_rooms(judged: Judged, values: np.ndarray, groups: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Sum and number of values by room and group, (rooms, groups, 2)."""
    sums = np.zeros((int(judged.rooms.max()) + 1, len(names), 2))
    for room, group, value in zip(judged.rooms, groups, values, strict=True):
        sums[room, names.index(group)] += (value, 1.0)
    return sums
