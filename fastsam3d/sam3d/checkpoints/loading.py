"""Builds a pipeline and loads its weights, from the package or from a checkpoint folder."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from fastsam3d.basics.config_files import config_directory, model_names
from fastsam3d.basics.devices import check_device
from fastsam3d.basics.runs import begin_computing
from fastsam3d.errors import UserError
from fastsam3d.sam3d.checkpoints.folder import PIPELINE_FILE, CheckpointFolder, load_strictly, parts_of, read_state
from fastsam3d.sam3d.checkpoints.official_settings import read_folder, with_official_settings
from fastsam3d.sam3d.checkpoints.sources import HUB, SAM3D_REPOSITORY
from fastsam3d.sam3d.memory.budget import plan_limit
from fastsam3d.sam3d.memory.residency import Residency, Resident, StagedWeights
from fastsam3d.sam3d.models.build import EMBEDDERS, build_networks
from fastsam3d.sam3d.models.config import ModelConfig, load_model_config
from fastsam3d.sam3d.models.initialisation import SkipInitialisation
from fastsam3d.sam3d.models.precision import half_type, store_half
from fastsam3d.sam3d.pipeline.finite import require_float32
from fastsam3d.sam3d.pipeline.pipeline import Pipeline

logger = logging.getLogger(__name__)


def load_pipeline(
    model: str = "mini",
    device: torch.device | str = "auto",
    checkpoint_dir: str | Path | None = None,
    random_weights: bool = False,
    *,
    formats: tuple[str, ...] = ("mesh", "gaussian"),
    precision: str = "float32",
    half_weights: bool = True,
    memory: str = "none",
) -> Pipeline:
    """Builds a pipeline, ready to run.

    Args:
        model: name of a file in `configs/model`: `mini` (weights in the package) or `sam3d`.
        device: `cpu`, `cuda` or `cuda:0`; `auto`: a CUDA device where PyTorch finds one, else the CPU.
        checkpoint_dir: folder with `ss_generator`, `ss_decoder`, `slat_generator`, `slat_decoder_mesh` and
            `slat_decoder_gs`, each `.safetensors` or `.ckpt`, or the folder above it that `hf download` makes. The
            sampler's settings and the constants of its `pipeline.yaml` replace those of the model's configuration.
            Default: the package's folder for `mini`.
        random_weights: leave the weights as initialised, the same at every call. For speed and memory only.
        formats: decoders to build; those that the model's configuration lacks are left out.
        precision: `float32`; or `bfloat16` or `float16`, mixed precision.
        half_weights: in mixed precision, store the matrices in that type, cast once
            (`fastsam3d.sam3d.models.precision`); false keeps them in fp32 and casts at every call.
        memory: `8gb`, `12gb`, `24gb`: size of the card that the run shall fit on; weights then wait on the host
            for their stage if they have to (`sam3d.memory.budget`). `none`: no limit, all weights on the device.

    Raises:
        UserError: unknown model or precision, absent device, missing or unfitting weights, a model that does not fit
            the memory, a default type of PyTorch that is not float32, or a process that was forked after a pipeline was
            loaded.
    """
    begin_computing()
    require_float32()
    config = load_model_config(_config_path(model))
    target = check_device(device)
    autocast = half_type(precision)
    limit = plan_limit(config, memory, formats, precision if half_weights else "float32", target)
    folder = None
    if not random_weights:
        folder, values = read_folder(checkpoint_directory(model, checkpoint_dir))
        config = with_official_settings(config, values, folder.path / PIPELINE_FILE)
    built_on = target if folder is None else torch.device("cpu")
    # Initialisation draws from the global generators; they are given back as they were.
    networks: dict[str, nn.Module] = {}
    with (
        torch.random.fork_rng(devices=[] if target.type == "cpu" else [target]),
        built_on,
        contextlib.nullcontext() if folder is None else SkipInitialisation(),
    ):
        torch.manual_seed(0)
        for name, network in build_networks(config, formats):
            if autocast is not None and half_weights:
                store_half(name, network, autocast, target)
            # One network at a time is on the device in full precision; staged ones wait on the host.
            networks[name] = network.to("cpu") if limit.plan.staged else network
    embedders = {name: networks.pop(name) for name in EMBEDDERS}
    models = nn.ModuleDict(networks)
    if folder is not None:
        load_weights(models, embedders, folder)
    else:
        logger.warning("model %s runs with random weights: good for timing, its objects mean nothing", model)
    residency: Residency = Resident()
    for module in (models, *embedders.values()):
        module.eval().requires_grad_(False)
        if not limit.plan.staged:
            module.to(target)
    if limit.plan.staged:
        residency = StagedWeights({**dict(models.items()), **embedders}, target, limit.plan.overlap)
    return Pipeline(models, embedders, config, target, autocast, residency, limit)


def load_weights(models: nn.ModuleDict, embedders: Mapping[str, nn.Module], folder: CheckpointFolder) -> None:
    """Loads every network of a pipeline from a checkpoint folder, strictly.

    A generator's file holds its condition embedder too, under the official prefixes.

    Raises:
        UserError: a file is missing or damaged, or its tensors are not the network's.
    """
    # All files are looked for before any is loaded: an incomplete folder is told at once.
    paths = {name: folder.file(name) for name in models}
    for name, path in paths.items():
        for part, state in parts_of(name, read_state(path)).items():
            load_strictly(embedders[part] if part in embedders else models[part], state, path)


def _config_path(model: str) -> Path:
    if model not in model_names():
        raise UserError(f"Unknown model {model!r}; choose from {', '.join(model_names())}.")
    return config_directory() / "model" / f"{model}.yaml"


def checkpoint_directory(model: str, checkpoint_dir: str | Path | None = None) -> Path:
    """The folder that a model's weights come from: the one given, or the package's own.

    Raises:
        UserError: none is given and the package ships no weights of the model.
    """
    if checkpoint_dir is None:
        packaged = Path(__file__).resolve().parents[2] / model
        if any(packaged.glob("*.safetensors")):  # a folder of that name may hold code
            return packaged
        raise UserError(
            f"Model {model!r} needs weights that are not part of this package. Ask for access at "
            f"{HUB}/{SAM3D_REPOSITORY}, fetch them with `python -m fastsam3d download` and pass the folder as "
            "checkpoint_dir; or pass random_weights=true to measure speed and memory only."
        )
    return Path(checkpoint_dir)


def model_config(model: str) -> ModelConfig:
    """Configuration of a model by name.

    Raises:
        UserError: unknown model.
    """
    return load_model_config(_config_path(model))
