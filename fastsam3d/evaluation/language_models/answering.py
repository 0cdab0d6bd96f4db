"""Answers all held-out questions with the settings of one row of the table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from fastsam3d.evaluation.language_models.held_out import Asked, batches
from fastsam3d.evaluation.measuring.methods import Method
from fastsam3d.mllm.mini.model import SceneLanguageModel
from fastsam3d.mllm.mini.prompts import answer


@dataclass(frozen=True)
class Answers:
    """The answers of one row.

    Attributes:
        method: the row.
        texts: for each room, the answers in the order of its questions.
        report: the report of the acceleration, as plain values; empty for "off".
    """

    method: Method
    texts: list[list[str]]
    report: dict[str, Any]


def answer_all(model: SceneLanguageModel, method: Method, asked: list[Asked], **generation: Any) -> Answers:
    """Answers all questions with the settings of a row. Afterwards the model is not accelerated.

    Args:
        model: a model that is not accelerated.
        method: the row.
        asked: rooms and their questions. The questions of a room are one batch.
        generation: keyword arguments of `generate`.
    """
    texts = []
    with method.attached(model) as acceleration:
        for one, questions in tqdm(batches(asked), total=len(asked), desc=method.name, leave=False):
            texts.append(answer(model, [one.observed] * len(questions), questions, **generation))
        report = acceleration.report().to_dict() if acceleration is not None else {}
    return Answers(method, texts, report)
