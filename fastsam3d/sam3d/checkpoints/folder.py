"""Checkpoint folders: finds the networks' files, reads them, and loads them into modules.

The folder is the one that `hf download facebook/sam-3d-objects` makes (docs/facts.md, sections S1 and S10),
or one with `.safetensors` files of the same names. Files are mapped into memory, not read: what a network does not need
is never touched, and weights that keep their type stay on disk until they are used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastsam3d.basics.paths import require_file, require_folder, user_path
from fastsam3d.basics.reading.packed_weights import read_safetensors
from fastsam3d.basics.reading.torch_archives import check_archive
from fastsam3d.errors import UserError
from fastsam3d.modules.tensor_versions import count_change
from fastsam3d.sam3d.checkpoints.restricted_pickle import TENSORS_ONLY

GENERATOR_PREFIX = "_base_models.generator."
EMBEDDER_PREFIX = "_base_models.condition_embedder."
GENERATORS = ("ss_generator", "slat_generator")
SUFFIXES = (".safetensors", ".ckpt", ".pt")
"""Of a network's file, in order of preference."""
SUBFOLDERS = ("checkpoints", "hf", "checkpoints/hf")
"""Places below a given folder where the official instructions put the files."""
PIPELINE_FILE = "pipeline.yaml"
LISTED_KEYS = 6
"""Keys of each kind that an error about unfitting weights names."""


@dataclass(frozen=True)
class CheckpointFolder:
    """A folder with the files of a model's networks.

    Attributes:
        path: the folder itself, not its parent.
        names: file name by network, where `pipeline.yaml` gives one (`ss_generator_ckpt_path: ...`).
    """

    path: Path
    names: Mapping[str, str] = field(default_factory=dict)

    def find(self, network: str) -> Path | None:
        """The file of a network, or None."""
        named = self.names.get(network)
        candidates = [f"{network}{suffix}" for suffix in SUFFIXES]
        if named is not None:
            # A .safetensors beside the named .ckpt is somebody's conversion of it and meant to be used.
            candidates = [str(Path(named).with_suffix(SUFFIXES[0])), named, *candidates]
        return next((self.path / name for name in candidates if (self.path / name).is_file()), None)

    def file(self, network: str) -> Path:
        """The file of a network.

        Raises:
            UserError: there is none.
        """
        path = self.find(network)
        if path is None:
            raise UserError(
                f"{self.path} has no {network}.safetensors or {network}.ckpt. Give the folder that holds all networks "
                f"of the model; `python -m fastsam3d doctor checkpoint_dir={self.path}` lists what is missing."
            )
        return path


def locate(directory: str | Path) -> Path:
    """The folder with the networks' files: the given one, or the `checkpoints` in it.

    Raises:
        UserError: it does not exist, may not be read, or holds neither.
    """
    folder = user_path(directory)
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise UserError(
            f"The checkpoint folder {folder} {what}. Give the folder with {PIPELINE_FILE} and ss_generator.ckpt; "
            "`python -m fastsam3d download` fetches it."
        )
    for candidate in (folder, *(folder / name for name in SUBFOLDERS)):
        if candidate.is_dir() and any((require_folder(candidate) / name).is_file() for name in _marks()):
            return candidate
    raise UserError(
        f"{folder} holds no networks: neither {PIPELINE_FILE} nor ss_generator.ckpt is in it or in its checkpoints/. "
        "`python -m fastsam3d download` fetches the official ones."
    )


def _marks() -> list[str]:
    networks = ("ss_generator", "ss_decoder", "slat_generator", "slat_decoder_mesh", "slat_decoder_gs")
    return [PIPELINE_FILE, *(f"{network}{suffix}" for network in networks for suffix in SUFFIXES)]


def read_state(path: Path) -> dict[str, Tensor]:
    """Tensors of a `.safetensors` file or a PyTorch checkpoint, by name, mapped into memory.

    Whatever else a checkpoint carries is left out, and no code of it runs (`checkpoints.restricted_pickle`).

    Raises:
        UserError: the file cannot be read as such.
    """
    require_file(path, f"the checkpoint {path}")
    try:
        if path.suffix == ".safetensors":
            return read_safetensors(path)
        check_archive(path)
        state = torch.load(path, map_location="cpu", pickle_module=TENSORS_ONLY, weights_only=False, mmap=True)
    except Exception as error:
        text = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise UserError(f"{path} cannot be read as a checkpoint ({text}). Download or copy it again.") from error
    if isinstance(state, Mapping) and isinstance(state.get("state_dict"), Mapping):
        state = state["state_dict"]
    if not isinstance(state, Mapping):
        raise UserError(f"{path} holds no state dict but a {type(state).__name__}. Download it again.")
    return {name: value for name, value in state.items() if isinstance(name, str) and isinstance(value, Tensor)}


def with_prefix(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Entries whose name starts with `prefix`, without it."""
    return {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}


def parts_of(network: str, state: Mapping[str, Tensor]) -> dict[str, Mapping[str, Tensor]]:
    """States of the modules that a network's file holds, by module: of a generator, its condition embedder's too."""
    if network not in GENERATORS:
        return {network: state}
    return {
        network: with_prefix(state, GENERATOR_PREFIX),
        network.replace("generator", "condition_embedder"): with_prefix(state, EMBEDDER_PREFIX),
    }


@dataclass(frozen=True)
class Mismatch:
    """Differences that keep a state from fitting a module: names by kind, with both shapes for the last."""

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshapen: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.misshapen)

    def describe(self, listed: int = LISTED_KEYS) -> str:
        """All counts, and the first `listed` names of each kind."""
        kinds = (("missing", self.missing), ("unexpected", self.unexpected), ("misshapen", self.misshapen))
        return "; ".join(
            f"{len(keys)} {kind} ({', '.join(keys[:listed])}{', ...' if len(keys) > listed else ''})"
            for kind, keys in kinds
            if keys
        )


def compare(module: nn.Module, state: Mapping[str, Tensor]) -> Mismatch:
    """Lists what keeps `state` from fitting `module`, by shapes and never values: either may be on `meta`."""
    own = module.state_dict()
    return Mismatch(
        missing=tuple(name for name in own if name not in state),
        unexpected=tuple(name for name in state if name not in own),
        misshapen=tuple(
            f"{name} is {list(state[name].shape)} instead of {list(own[name].shape)}"
            for name in own
            if name in state and state[name].shape != own[name].shape
        ),
    )


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], where: str | Path) -> None:
    """Puts a state into a module, tensor by tensor, in the module's dtypes and on its device.

    Tensors that have the right type already are taken as they are, mapped files included, so that loading needs memory
    for one converted tensor at a time and not for a second copy of the network.

    Raises:
        UserError: keys are missing, left over or of another shape; names some of each. The module is unchanged then.
    """
    mismatch = compare(module, state)
    if mismatch:
        raise UserError(
            f"The weights in {where} do not fit {type(module).__name__}: {mismatch.describe()}. "
            "Check that the file belongs to this model and version."
        )
    own: dict[str, Any] = module.state_dict(keep_vars=True)
    for name, tensor in own.items():
        tensor.data = state[name].to(device=tensor.device, dtype=tensor.dtype)
    count_change(own.values())
