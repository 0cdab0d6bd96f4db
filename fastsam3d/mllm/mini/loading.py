"""Loads and stores the small model: weights in half precision, sizes as JSON in the metadata of the file."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import torch

from fastsam3d.basics.files import write_atomically
from fastsam3d.basics.paths import require_file, user_path
from fastsam3d.errors import UserError
from fastsam3d.mllm.mini import tokens
from fastsam3d.mllm.mini.model import ModelConfig, SceneLanguageModel
from fastsam3d.mllm.predictor.files import load_predictor

FOLDER = Path(__file__).parent
LANGUAGE_MODEL, PREDICTOR = "language_model.safetensors", "attention_predictor.safetensors"
_ENTRY = "fastsam3d.scene_language_model"
_LARGEST = {"width": 4096, "layers": 128, "heads": 128, "feed_forward": 16384}
_TIED = "language_model.lm_head.weight"


def save_small_model(model: SceneLanguageModel, path: Path) -> None:
    """Writes the weights and sizes of a model to one file, with weights in half precision."""
    from safetensors.torch import save

    state = {name: value.half().contiguous() for name, value in model.state_dict().items() if name != _TIED}
    metadata = {_ENTRY: json.dumps(asdict(model.config) | {"words": list(tokens.words())})}
    write_atomically(path, save(state, metadata))


def load_small_model(folder: str | Path | None = None, predictor: bool = True) -> SceneLanguageModel:
    """Loads the small 3D language model, in evaluation mode and single precision, on the CPU.

    Args:
        folder: folder with its two files; None: the model that comes with the package.
        predictor: also load the predictor of its attention, which the presets `balanced` and `gap_...` need.

    Raises:
        UserError: transformers is missing; a file is missing or damaged; or the model has another vocabulary.
    """
    from safetensors import SafetensorError, safe_open

    place = FOLDER if folder is None else user_path(folder)
    path = require_file(place / LANGUAGE_MODEL, f"the small language model {place / LANGUAGE_MODEL}")
    try:
        with safe_open(path, framework="pt") as file:
            said = json.loads((file.metadata() or {}).get(_ENTRY, "null"))
            state = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError) as error:
        raise UserError(f"{path} is damaged: {error}. Copy the file again.") from error
    model = SceneLanguageModel(_config(said, path))
    state[_TIED] = state.get("language_model.model.embed_tokens.weight", torch.empty(0))
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(f"{path} does not hold the weights that its sizes need: {error}. Copy it again.") from error
    model.eval()
    if predictor:
        model.language_model.attention_predictor = load_predictor(place / PREDICTOR)
    return model


def _config(said: object, path: Path) -> ModelConfig:
    if not isinstance(said, dict) or said.pop("words", None) != list(tokens.words()):
        raise UserError(f"{path} is no small language model of this version: its vocabulary differs. Train it again.")
    try:
        config = ModelConfig(**said)
        possible = all(0 < getattr(config, name) <= most for name, most in _LARGEST.items())
    except TypeError:
        possible = False
    if not possible:
        raise UserError(f"{path} gives sizes that no small language model has: {said}. Copy the file again.")
    return config
