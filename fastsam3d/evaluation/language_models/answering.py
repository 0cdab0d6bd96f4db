"""Answers of one row to all held-out questions."""

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
    """What a row said.

    Attributes:
        method: the row.
        texts: of every room, the answers in the order of its questions.
        report: of the acceleration, as plain values; empty for "off".
    """

    method: Method
    texts: list[list[str]]
    report: dict[str, Any]


def answer_all(model: SceneLanguageModel, method: Method, asked: list[Asked], **generation: Any) -> Answers:
    """Answers all questions with a row's settings; the model is as before afterwards."""
    texts = []
    with method.attached(model) as acceleration:
        for one, questions in tqdm(batches(asked), total=len(asked), desc=method.name, leave=False):
            texts.append(answer(model, [one.observed] * len(questions), questions, **generation))
        report = acceleration.report().to_dict() if acceleration is not None else {}
    return Answers(method, texts, report)
