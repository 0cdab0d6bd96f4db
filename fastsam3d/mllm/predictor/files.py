"""Stores a trained predictor in one safetensors file: its weights, and its sizes as JSON in the metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastsam3d.basics.files import write_atomically
from fastsam3d.basics.paths import require_file, user_path
from fastsam3d.errors import UserError
from fastsam3d.mllm.predictor.network import AttentionPredictor, PredictorConfig

VERSION = 1
_ENTRY = "fastsam3d.attention_predictor"
_LARGEST_FILE = 1 << 30
_LARGEST_SIZE, _MOST_LAYERS, _LARGEST_GROUP = 1 << 16, 64, 256
"""Bounds for the sizes in a file, so that a damaged file cannot ask for a huge network."""


def save_predictor(
    network: AttentionPredictor,
    path: str | Path,
    notes: Mapping[str, str] | None = None,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """Writes a predictor to a file that `load_predictor` reads.

    Args:
        network: the predictor.
        path: of the file, `.safetensors`.
        notes: other facts to store with it, for instance the language model and the data.
        dtype: number type of the stored weights; bfloat16 halves the size of the file.

    Returns:
        The path that was written.

    Raises:
        UserError: the path cannot be written.
    """
    from safetensors.torch import save

    state = {name: value.detach().to("cpu", dtype).contiguous() for name, value in network.state_dict().items()}
    entry = {"version": VERSION, "config": asdict(network.config), "notes": dict(notes or {})}
    return write_atomically(user_path(path), save(state, {_ENTRY: json.dumps(entry)}))


def load_predictor(path: str | Path) -> AttentionPredictor:
    """Reads a predictor: in float32, on the CPU, in evaluation mode.

    Raises:
        UserError: the file is missing or damaged, or is not a predictor of this version.
    """
    from safetensors import SafetensorError, safe_open

    path = user_path(path)
    require_file(path, f"the attention predictor {path}", _LARGEST_FILE)
    try:
        with safe_open(str(path), "pt") as file:
            entry = json.loads((file.metadata() or {})[_ENTRY])
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        if entry["version"] != VERSION:
            raise ValueError(f"version {entry['version']}, and known is {VERSION}")
        return network_of(_checked_config(entry["config"]), state)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} is no attention predictor that can be read ({error}): give a file that save_predictor wrote, or "
            "train it again"
        ) from None


def notes_of(path: str | Path) -> dict[str, str]:
    """Reads the notes that `save_predictor` stored; empty where the file has none or cannot be read."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(user_path(path)), "pt") as file:
            return dict(json.loads((file.metadata() or {})[_ENTRY])["notes"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return {}


def network_of(config: PredictorConfig, state: Mapping[str, Tensor]) -> AttentionPredictor:
    """Makes a predictor with given weights, in evaluation mode. No random numbers are drawn.

    Raises:
        ValueError: weights are missing, unexpected or of another shape; the message names the first of them.
    """
    with torch.device("meta"):
        network = AttentionPredictor(config)
    own = network.state_dict()
    for name in sorted(own.keys() | state.keys()):
        if name not in state:
            raise ValueError(f"{name} is missing")
        if name not in own:
            raise ValueError(f"{name} is unexpected")
        if state[name].shape != own[name].shape:
            raise ValueError(f"{name} has the shape {tuple(state[name].shape)}, needed is {tuple(own[name].shape)}")
    network.load_state_dict({name: value.float() for name, value in state.items()}, assign=True)
    network.fill_constants()
    return network.eval().requires_grad_(False)


def _checked_config(values: Any) -> PredictorConfig:
    if not isinstance(values, Mapping):
        raise ValueError(f"its sizes are a {type(values).__name__}")
    known = {field.name: field.type for field in fields(PredictorConfig)}
    for name, value in values.items():
        if name not in known:
            raise ValueError(f"unknown size {name}")
        if known[name] == "int":
            layers = name.endswith("layers")
            most = _MOST_LAYERS if layers else _LARGEST_GROUP if name == "group_size" else _LARGEST_SIZE
            if not isinstance(value, int) or not (0 if layers else 1) <= value <= most:
                raise ValueError(f"{name} is {value!r}")
    return PredictorConfig(**values)
