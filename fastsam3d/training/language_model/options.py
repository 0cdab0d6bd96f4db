"""Settings of the training of the small language model."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class LanguageModelOptions:
    """Settings of a training run of the small 3D language model."""

    output: str = "runs/language_model"
    minutes: float | None = None
    steps: int | None = 6000
    seed: int = 0
    rooms: int = 8
    questions: int = 16
    learning_rate: float = 1e-3
