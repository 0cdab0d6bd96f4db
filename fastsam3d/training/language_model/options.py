"""Settings of the training of the small 3D language model, without PyTorch: for help and mistyped flags."""

from __future__ import annotations

from dataclasses import dataclass

from fastsam3d.basics.flags import flag
from fastsam3d.training.options import PredictorOptions

ROWS = LAST, QUESTION, TEXT, ANSWER, GENERATION = ("last", "question", "text", "answer", "generation")
"""Rows whose attention is averaged: the last of the prompt; the question's words; all text; the words of the answer;
the rows that generate the answer, which are the last of the prompt and all words of the answer but its last."""


@dataclass(frozen=True, kw_only=True)
class LanguageModelOptions:
    """Settings of a training run of the small 3D language model."""

    output: str = flag(str, "run folder: checkpoint.pt and losses.jsonl")
    seed: int = flag(int, "of weights, rooms and questions", 0)
    minutes: float | None = flag(float, "length of the run, over all resumptions", None, one_of="length")
    steps: int | None = flag(int, "length of the run in steps, instead of minutes", None, one_of="length")
    rooms: int = flag(int, "rooms of a step", 8)
    questions: int = flag(int, "questions about each of them", 16)
    learning_rate: float = flag(float, "largest learning rate of AdamW", 1e-3)


@dataclass(frozen=True, kw_only=True)
class SmallPredictorOptions(PredictorOptions):
    """Settings of the training of the small model's attention predictor."""

    model: str = flag(str, "run folder of the language model")
    rows: str = flag(str, f"rows whose attention is predicted: {', '.join(ROWS)}", LAST)
    rooms: int = flag(int, "rooms of a step", 6)
    questions: int = flag(int, "questions about each of them", 10)


@dataclass(frozen=True, kw_only=True)
class SmallModelExportOptions:
    """What becomes a folder that `load_small_model` reads."""

    model: str = flag(str, "run folder of the language model")
    predictor: str = flag(str, "run folder of its predictor")
    output: str = flag(str, "folder of the two files")
