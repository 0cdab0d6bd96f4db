"""Builds a pipeline and loads its weights, from the package or from a checkpoint folder."""

from __future__ import annotations

import io
import logging
import pickle
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastsam3d.errors import UserError
from fastsam3d.models.build import EMBEDDERS, build_networks
from fastsam3d.models.config import ModelConfig, load_model_config
from fastsam3d.models.packed_weights import read_safetensors
from fastsam3d.models.precision import store_half
from fastsam3d.pipeline.pipeline import Pipeline

logger = logging.getLogger(__name__)

GENERATOR_PREFIX = "_base_models.generator."
EMBEDDER_PREFIX = "_base_models.condition_embedder."
SUFFIXES = (".safetensors", ".ckpt")
CHECKPOINT_SOURCE = "https://huggingface.co/facebook/sam-3d-objects"
LISTED_KEYS = 6
"""Keys of each kind that an error about unfitting weights names."""


def load_pipeline(
    model: str = "mini",
    device: torch.device | str = "cpu",
    checkpoint_dir: str | Path | None = None,
    random_weights: bool = False,
    *,
    formats: tuple[str, ...] = ("mesh", "gaussian"),
    autocast: torch.dtype | None = None,
    half_weights: bool = True,
) -> Pipeline:
    """Builds a pipeline, ready to run.

    Args:
        model: name of a file in `configs/model`: `mini` (weights in the package) or `sam3d`.
        device: `cpu`, `cuda` or `cuda:0`.
        checkpoint_dir: folder with `ss_generator`, `ss_decoder`, `slat_generator`, `slat_decoder_mesh` and
            `slat_decoder_gs`, each `.safetensors` or `.ckpt`. Default: the package's folder for `mini`.
        random_weights: leave the weights as initialised, the same at every call. For speed and memory only.
        formats: decoders to build; those that the model's configuration lacks are left out.
        autocast: dtype of mixed precision, None for none.
        half_weights: with `autocast`, store the matrices in that type, cast once (`fastsam3d.models.precision`);
            false keeps them in fp32 and casts at every call.

    Raises:
        UserError: unknown model, absent device, missing or unfitting weights.
    """
    config = load_model_config(_config_path(model))
    target = check_device(device)
    directory = None if random_weights else _checkpoint_directory(model, checkpoint_dir)
    # Initialisation draws from the global generators; they are given back as they were.
    networks: dict[str, nn.Module] = {}
    with torch.random.fork_rng(devices=[] if target.type == "cpu" else [target]), torch.device(target):
        torch.manual_seed(0)
        for name, network in build_networks(config, formats):
            if autocast is not None and half_weights:
                store_half(name, network, autocast, target)
            networks[name] = network
    embedders = {name: networks.pop(name) for name in EMBEDDERS}
    models = nn.ModuleDict(networks)
    if directory is not None:
        load_weights(models, embedders, directory)
    else:
        logger.warning("model %s runs with random weights: good for timing, its objects mean nothing", model)
    for module in (models, *embedders.values()):
        module.to(target).eval().requires_grad_(False)
    return Pipeline(models, embedders, config, target, autocast)


def check_device(device: torch.device | str) -> torch.device:
    """The device, if this machine has it.

    Raises:
        UserError: it is no device name, or there is no such device.
    """
    try:
        target = torch.device(device)
    except (RuntimeError, TypeError):
        raise UserError(f"{device!r} is not a device; use cpu, cuda or cuda:0.") from None
    if target.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (target.index or 0) >= count:
            found = f"only {count} of them" if count else "none"
            raise UserError(f"Device {device} was asked for, but PyTorch finds {found} here. Use device=cpu.")
    return target


def load_weights(models: nn.ModuleDict, embedders: Mapping[str, nn.Module], directory: Path) -> None:
    """Loads every network of a pipeline from a checkpoint folder, strictly.

    A generator's file holds its condition embedder too, under the official prefixes.

    Raises:
        UserError: a file is missing or damaged, or its tensors are not the network's.
    """
    for name, module in models.items():
        path = _find_file(directory, name)
        state = read_state(path)
        if name in ("ss_generator", "slat_generator"):
            embedder = embedders[name.replace("generator", "condition_embedder")]
            load_strictly(module, with_prefix(state, GENERATOR_PREFIX), path)
            load_strictly(embedder, with_prefix(state, EMBEDDER_PREFIX), path)
        else:
            load_strictly(module, state, path)


def with_prefix(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Entries whose name starts with `prefix`, without it."""
    return {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], where: str | Path) -> None:
    """Loads a state into a module, converting to the module's dtypes.

    Raises:
        UserError: keys are missing, left over or of another shape; names some of each.
    """
    own = module.state_dict()
    missing = [name for name in own if name not in state]
    unexpected = [name for name in state if name not in own]
    misshapen = [
        f"{name} is {list(state[name].shape)} instead of {list(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    problems = [
        f"{len(keys)} {kind} ({', '.join(keys[:LISTED_KEYS])}{', ...' if len(keys) > LISTED_KEYS else ''})"
        for kind, keys in (("missing", missing), ("unexpected", unexpected), ("misshapen", misshapen))
        if keys
    ]
    if problems:
        raise UserError(
            f"The weights in {where} do not fit {type(module).__name__}: {'; '.join(problems)}. "
            "Check that the file belongs to this model and version."
        )
    module.load_state_dict(dict(state))


def read_state(path: Path) -> dict[str, Tensor]:
    """Tensors of a `.safetensors` file or a PyTorch checkpoint, by name, on the CPU.

    Raises:
        UserError: the file cannot be read as such.
    """
    try:
        if path.suffix == ".safetensors":
            return read_safetensors(path)
        state = torch.load(path, map_location="cpu", pickle_module=_TENSORS_ONLY, weights_only=False)
    except Exception as error:
        raise UserError(f"{path} cannot be read as a checkpoint ({error}). Download or copy it again.") from error
    if isinstance(state, Mapping) and isinstance(state.get("state_dict"), Mapping):
        state = state["state_dict"]
    if not isinstance(state, Mapping):
        raise UserError(f"{path} holds no state dict but a {type(state).__name__}. Download it again.")
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}


class _Inert:
    """Stands for any object of a checkpoint that is not a tensor."""

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        pass

    def __setstate__(self, _state: Any) -> None:
        pass

    def __setitem__(self, _key: Any, _value: Any) -> None:
        pass

    def append(self, _value: Any) -> None:
        """Ignored, as everything is."""

    def extend(self, _values: Any) -> None:
        """Ignored, as everything is."""


class _TensorsOnlyUnpickler(pickle.Unpickler):
    """Rebuilds tensors and plain containers; whatever else a training checkpoint carries stays inert.

    The official generator files are training checkpoints: PyTorch's own safe mode refuses them because of the
    objects beside the weights, and its unsafe mode would run code from the file.
    """

    def find_class(self, module: str, name: str) -> Any:
        tensors = module in ("torch", "torch.storage") and (name.endswith("Storage") or name in ("Size", "device"))
        rebuilds = module == "torch._utils" and name.startswith("_rebuild_")
        dtypes = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if tensors or rebuilds or dtypes or (module, name) == ("collections", "OrderedDict"):
            return super().find_class(module, name)
        return _Inert


def _load(file: Any, **kwargs: Any) -> Any:
    return _TensorsOnlyUnpickler(file, **kwargs).load()


def _loads(data: bytes, **kwargs: Any) -> Any:
    return _load(io.BytesIO(data), **kwargs)


_TENSORS_ONLY = types.SimpleNamespace(
    __name__="tensors_only", Unpickler=_TensorsOnlyUnpickler, load=_load, loads=_loads
)


def _config_path(model: str) -> Path:
    from fastsam3d.config import config_directory

    directory = Path(str(config_directory())) / "model"
    path = directory / f"{model}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in directory.glob("*.yaml")))
        raise UserError(f"Unknown model {model!r}; choose from {known}.")
    return path


def _checkpoint_directory(model: str, checkpoint_dir: str | Path | None) -> Path:
    if checkpoint_dir is None:
        packaged = Path(__file__).resolve().parent.parent / model
        if packaged.is_dir():
            return packaged
        raise UserError(
            f"Model {model!r} needs weights that are not part of this package. Ask for access at "
            f"{CHECKPOINT_SOURCE}, download the folder and pass it as checkpoint_dir; or pass "
            "random_weights=true to measure speed and memory only."
        )
    directory = Path(checkpoint_dir).expanduser()
    if not directory.is_dir():
        raise UserError(f"The checkpoint folder {directory} does not exist. Give the folder with ss_generator.ckpt.")
    return directory


def _find_file(directory: Path, name: str) -> Path:
    for suffix in SUFFIXES:
        path = directory / (name + suffix)
        if path.is_file():
            return path
    raise UserError(
        f"{directory} has no {name}.safetensors or {name}.ckpt. Give the folder that holds all networks of the model."
    )


def model_config(model: str) -> ModelConfig:
    """Configuration of a model by name.

    Raises:
        UserError: unknown model.
    """
    return load_model_config(_config_path(model))
