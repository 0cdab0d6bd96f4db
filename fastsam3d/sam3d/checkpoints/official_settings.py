"""Reads an official `pipeline.yaml`: plain values on a short list. No object that the file names is made.

The file is written for Hydra: it names classes to be built (`_target_`). None is built here. What it says about
sampling, about the constants of the latents, and about file names is taken; what it says about the crop is compared
with what this pipeline does; everything else is left alone. What it does not say stays as in `configs/model`.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import yaml

from fastsam3d.basics.plain_yaml import LARGEST_TEXT, check_size, short
from fastsam3d.errors import UserError
from fastsam3d.sam3d.checkpoints.folder import PIPELINE_FILE, CheckpointFolder, locate
from fastsam3d.sam3d.models.config import ModelConfig
from fastsam3d.sam3d.pipeline.preprocessing import BOX_SIZE_FACTOR

logger = logging.getLogger(__name__)

SAMPLER_KEYS = {
    "inference_steps": "inference_steps",
    "rescale_t": "rescale_t",
    "cfg_strength": "strength",
    "cfg_interval": "interval",
}
"""Key of `pipeline.yaml` after its stage's prefix (`ss_`, `slat_`), and the field of the sampler that it sets."""
POSE_DECODER = "ScaleShiftInvariant"
CKPT_PATH = "_ckpt_path"


def read_folder(directory: str | Path) -> tuple[CheckpointFolder, dict[str, Any]]:
    """A checkpoint folder and the values of its `pipeline.yaml`; `{}` where it has none.

    Raises:
        UserError: no such folder, no networks in it, or a `pipeline.yaml` that is damaged or points elsewhere.
    """
    path = locate(directory)
    values = _read_yaml(path / PIPELINE_FILE) if (path / PIPELINE_FILE).is_file() else {}
    names = {
        key.removesuffix(CKPT_PATH): _inside(path, key, value)
        for key, value in values.items()
        if key.endswith(CKPT_PATH) and value is not None
    }
    return CheckpointFolder(path, names), values


def with_official_settings(config: ModelConfig, values: Mapping[str, Any], where: Path) -> ModelConfig:
    """Merges the settings of `pipeline.yaml` into a model's configuration.

    Raises:
        UserError: a value is of the wrong kind, or asks for something that this pipeline cannot do.
    """
    changes: dict[str, Any] = {}
    for stage in ("ss", "slat"):
        sampler = {
            field: _sampler_value(f"{stage}_{key}", field, values[f"{stage}_{key}"], where)
            for key, field in SAMPLER_KEYS.items()
            if values.get(f"{stage}_{key}") is not None
        }
        changes[f"{stage}_sampler"] = dataclasses.replace(getattr(config, f"{stage}_sampler"), **sampler)
    for key in ("slat_mean", "slat_std"):
        if values.get(key) is not None:
            changes[key] = _vector(key, values[key], len(config.slat_mean), where)
    if values.get("downsample_ss_dist") is not None:
        distance = _number("downsample_ss_dist", values["downsample_ss_dist"], 0, 16, where)
        changes["downsample_ss_dist"] = int(distance)
    pose = values.get("pose_decoder_name")
    if pose is not None and pose != POSE_DECODER:
        raise UserError(f"{where} asks for the pose decoder {short(pose)}; only {POSE_DECODER} is known here.")
    _compare_crop(config, values, where)
    changed = dataclasses.replace(config, **changes)
    for name, new in changes.items():
        if new != getattr(config, name):
            logger.info("%s: %s is %s", where, name, new)
    return changed


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > LARGEST_TEXT:
            raise UserError(f"{path} is too large for a settings file. Download it again.")
        text = path.read_text(encoding="utf-8")
        check_size(text)
        values = yaml.safe_load(text)
    except UserError:
        raise
    except Exception as error:  # the reader raises exceptions of many kinds on a damaged file
        text = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{path} cannot be read ({text}). Download it again.") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} holds no settings. Download it again.")
    return {str(key): value for key, value in values.items()}


def _inside(folder: Path, key: str, value: Any) -> str:
    text = str(value)
    parts = {*PurePosixPath(text).parts, *PureWindowsPath(text).parts}
    outside = ".." in parts or Path(text).is_absolute() or PureWindowsPath(text).drive
    no_name = not PurePosixPath(text).name or "\0" in text or any(len(os.fsencode(part)) > 255 for part in parts)
    if not isinstance(value, str) or outside or no_name:
        raise UserError(f"{folder / PIPELINE_FILE}: {key} is {short(value)}, which is no file inside the folder.")
    return text


def _sampler_value(key: str, field: str, value: Any, where: Path) -> Any:
    if field == "inference_steps":
        steps = _number(key, value, 1, 1000, where)
        if steps != int(steps):
            raise UserError(f"{where}: {key} is {short(value)}; a whole number is needed.")
        return int(steps)
    if field == "interval":
        return _vector(key, value, 2, where)
    return _number(key, value, 0, 1000, where)


def _number(key: str, value: Any, low: float, high: float, where: Path) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise UserError(f"{where}: {key} is {short(value)}; a number from {low} to {high} is needed.")
    return float(value)


def _vector(key: str, value: Any, length: int, where: Path) -> tuple[float, ...]:
    numbers = value if isinstance(value, list) else []
    if len(numbers) != length or any(
        isinstance(v, bool) or not isinstance(v, int | float) or not math.isfinite(v) for v in numbers
    ):
        raise UserError(f"{where}: {key} is {short(value)}; a list of {length} numbers is needed.")
    return tuple(float(v) for v in numbers)


def _compare_crop(config: ModelConfig, values: Mapping[str, Any], where: Path) -> None:
    known = {"box_size_factor": BOX_SIZE_FACTOR, "padding_factor": 0.0, "size": config.image_size}
    for key, value in _nested({name: values.get(name) for name in ("ss_preprocessor", "slat_preprocessor")}):
        if key in known and isinstance(value, int | float) and value != known[key]:
            logger.warning("%s: the preprocessing asks for %s=%s; this pipeline uses %s", where, key, value, known[key])


def _nested(values: Any, seen: set[int] | None = None) -> Iterator[tuple[str, Any]]:
    """Every key and value at any depth. Aliases of YAML may be shared many times over: each is visited once."""
    seen = set() if seen is None else seen
    if not isinstance(values, dict | list) or id(values) in seen:
        return
    seen.add(id(values))
    if isinstance(values, dict):
        yield from ((str(key), value) for key, value in values.items())
    for value in values.values() if isinstance(values, dict) else values:
        yield from _nested(value, seen)
