"""The small 3D language model with a few thousand random weights, as an object and as a folder."""

from __future__ import annotations

from pathlib import Path

import torch

from fastsam3d.mllm.mini.loading import LANGUAGE_MODEL, PREDICTOR, save_small_model
from fastsam3d.mllm.mini.model import ModelConfig, SceneLanguageModel
from fastsam3d.mllm.predictor.files import save_predictor
from fastsam3d.mllm.predictor.network import PredictorConfig, seeded_predictor

WIDTH = 32


def tiny_scene_model() -> SceneLanguageModel:
    """A model in evaluation mode; its weights depend on a fixed seed, and are large enough to tell tokens apart."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = SceneLanguageModel(ModelConfig(width=WIDTH, layers=4, heads=4, feed_forward=48))
    with torch.no_grad():
        for parameter in model.language_model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(12)
    return model.eval()


def write_tiny_model(folder: Path, predictor: bool = True) -> Path:
    """Writes the model, and an untrained predictor of its attention, as `load_small_model` reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    save_small_model(tiny_scene_model(), folder / LANGUAGE_MODEL)
    if predictor:
        save_predictor(seeded_predictor(PredictorConfig(embedding=WIDTH), 0), folder / PREDICTOR)
    return folder
