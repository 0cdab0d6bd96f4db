"""Stores the answers of an evaluation on disk, batch by batch, so that an interrupted evaluation can continue."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from fastsam3d.basics.record_log import CODE, Record, RecordLog
from fastsam3d.basics.version import __version__
from fastsam3d.errors import UserError
from fastsam3d.mllm.benchmarks import Prediction
from fastsam3d.mllm.predictor.question_sets import QuestionSet
from fastsam3d.mllm.report import Report

FILE = "answers.jsonl"
ANSWERS = "answers"


class AnswerLog:
    """Answers by question set and place in the set, and the pruning report of each batch.

    Args:
        folder: of the evaluation.
        identity: everything that the answers depend on, such as the model and the settings, as plain values.
        resume: False deletes the answers of an earlier evaluation.

    Raises:
        UserError: the folder holds answers of another evaluation.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], resume: bool) -> None:
        self._log = RecordLog(folder / FILE, {**identity, CODE: __version__}, resume=resume)

    def append(self, questions: QuestionSet, answered: Sequence[tuple[int, Prediction]], report: Report) -> None:
        """Adds a batch; it is on disk when this returns."""
        record = {
            "kind": ANSWERS,
            "set": questions.name,
            "digest": questions.digest,
            "places": [place for place, _ in answered],
            "texts": [prediction.text for _, prediction in answered],
            "report": dataclasses.asdict(report),
        }
        self._log.append([record])

    def texts(self, questions: QuestionSet) -> dict[int, str]:
        """Answers to the questions of a set, by place.

        Raises:
            UserError: the stored answers of this set belong to other questions.
        """
        found: dict[int, str] = {}
        for record in self._of(questions):
            found |= dict(zip(record["places"], record["texts"], strict=True))
        return found

    def report(self, questions: QuestionSet, places: Collection[int], begin: Report) -> Report:
        """Adds the reports of batches of a set to an empty report, and returns it.

        Args:
            questions: the set.
            places: places of questions in the set. Batches without any of them do not count: an earlier run may have
                answered more questions.
            begin: an empty report of the same settings.
        """
        wanted = set(places)
        for record in self._of(questions):
            if not wanted.isdisjoint(record["places"]):
                begin.add(Report(**record["report"]))
        return begin

    def _of(self, questions: QuestionSet) -> list[Record]:
        records = self._log.select(kind=ANSWERS, set=questions.name)
        if any(record["digest"] != questions.digest for record in records):
            raise UserError(
                f"{self._log.path} holds answers to other questions of {questions.name}: choose another output, give "
                "the same annotation file as then, or resume=false to answer everything again"
            )
        return records
