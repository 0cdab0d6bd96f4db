"""`mllm predict`: attention maps that a predictor gives for the questions of Chat-Scene, in one file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastsam3d.cli.commands.mllm.stored_maps import write_maps
from fastsam3d.training.predictor.chat_scene.options import PredictionOptions

EXAMPLES = "  {command} FILES predictor=runs/gap/predictor.safetensors output=predicted.safetensors"


def main(words: list[str]) -> int:
    """Predicts the maps, see `write_maps`."""
    return write_maps("predict", PredictionOptions, EXAMPLES, words, _maker)


def _maker() -> Callable[..., Any]:
    from fastsam3d.training.predictor.chat_scene.prediction import predict

    return predict
