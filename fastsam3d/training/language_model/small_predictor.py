"""Trains the small model's attention predictor, and writes both as the files that `load_small_model` reads."""

from __future__ import annotations

from pathlib import Path

import torch

from fastsam3d.errors import UserError
from fastsam3d.mllm.mini.loading import LANGUAGE_MODEL, PREDICTOR, save_small_model
from fastsam3d.mllm.mini.model import ModelConfig, SceneLanguageModel
from fastsam3d.mllm.predictor.files import load_predictor, save_predictor
from fastsam3d.mllm.predictor.network import AttentionPredictor, PredictorConfig
from fastsam3d.training.language_model.maps import maps_of_rooms
from fastsam3d.training.language_model.options import ROWS, SmallModelExportOptions, SmallPredictorOptions
from fastsam3d.training.optimization import require_checkpoint
from fastsam3d.training.predictor.training import FILE, train

HELD_OUT = 900  # added to the seed of the batches that a run measures itself with; the benchmark's rooms are others


def trained_model(run: str | Path) -> SceneLanguageModel:
    """The language model of a training run, in evaluation mode.

    Raises:
        UserError: the run has no checkpoint.
    """
    state = require_checkpoint(Path(run) / "checkpoint.pt", "name the folder of a training run of the language model")
    model = SceneLanguageModel(ModelConfig())
    prefix = "model."
    model.load_state_dict({k.removeprefix(prefix): v for k, v in state["model"].items() if k.startswith(prefix)})
    return model.eval().requires_grad_(False)


def train_small_predictor(options: SmallPredictorOptions) -> AttentionPredictor:
    """Trains the predictor on maps that the language model makes in the same step.

    Raises:
        UserError: the rows are unknown, or the run of the language model has no checkpoint.
    """
    if options.rows not in ROWS:
        raise UserError(f"rows is {options.rows!r}: choose one of {', '.join(ROWS)}")
    model = trained_model(options.model)
    source = maps_of_rooms(model, options.rows, options.rooms, options.questions)
    config = PredictorConfig(rows=options.rows)
    return train(options, source, lambda seed, number: source(seed + HELD_OUT, number), config)


def export(options: SmallModelExportOptions) -> Path:
    """Writes the language model and its predictor in half precision; returns the folder."""
    model, output = trained_model(options.model), Path(options.output)
    predictor = load_predictor(Path(options.predictor) / FILE)
    save_small_model(model, output / LANGUAGE_MODEL)
    save_predictor(predictor, output / PREDICTOR, {"language model": "fastsam3d.mllm.mini"}, torch.float16)
    return output
