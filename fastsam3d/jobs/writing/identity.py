"""Hashes of all inputs of a result, to tell whether a kept result is that of the present request."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastsam3d.basics.version import __version__
from fastsam3d.errors import UserError
from fastsam3d.jobs.output_folder import json_text

if TYPE_CHECKING:
    from fastsam3d.jobs.request import Request

WEIGHT_SUFFIXES = (".safetensors", ".ckpt", ".pt", ".yaml")
"""Suffixes of files of weights and their settings."""
WHOLE = 64 * 2**20
"""Largest size, in bytes, of a weight file that is hashed completely, which takes a fraction of a second."""
PART = 2**20
PACKAGE = Path(__file__).resolve().parents[2]
"""The package's folder. It holds the shipped weights, in a folder with the model's name."""


def conditions_of(
    request: Request, picture: np.ndarray, pointmap: np.ndarray | None, batch: int | None
) -> dict[str, Any]:
    """Returns everything that the results of a scene depend on, without its masks and the settings of the export."""
    return {
        "version": __version__,
        "image": content_hash(picture),
        "pointmap": None if pointmap is None else content_hash(pointmap),
        "model": request.model,
        "checkpoint_dir": request.checkpoint_dir,
        "random_weights": request.random_weights,
        "weights": weights_identity(request),
        "samplers": request.samplers,
        "acceleration": request.acceleration.to_dict(),
        "seed": request.seed,
        "precision": request.precision,
        "formats": list(request.formats),
        "device": request.device_name(),
        "batch": batch,
    }


def weights_identity(request: Request) -> str | None:
    """Returns a hash that changes if other weights are at the same path; None if a run has no weight files.

    It covers the name and content of every file; of large files the size, the time of the last change, and the first
    and the last MiB.
    """
    from fastsam3d.sam3d.checkpoints.folder import locate

    if request.random_weights:
        return None
    try:
        folder = locate(request.checkpoint_dir) if request.checkpoint_dir else PACKAGE / request.model
        files = sorted(path for path in folder.rglob("*") if path.suffix in WEIGHT_SUFFIXES and path.is_file())
        return plain_hash([(str(path.relative_to(folder)), *_file_identity(path)) for path in files])
    except (OSError, UserError):
        return None  # loading says what is wrong with it


def plain_hash(value: Any) -> str:
    """Returns the hash of nested plain values."""
    return hashlib.sha256(json.dumps(json.loads(json_text(value)), sort_keys=True).encode("utf-8")).hexdigest()


def content_hash(array: np.ndarray) -> str:
    """Returns the hash of an array's shape, type and values."""
    array = np.ascontiguousarray(array)
    return hashlib.sha256(repr((array.shape, array.dtype.str)).encode() + array.tobytes()).hexdigest()


def file_hashes(paths: Iterable[Path]) -> dict[str, str]:
    """Returns the hashes of files' contents by name."""
    return {path.name: _hash_of(path) for path in paths}


def unchanged_files(folder: Path, hashes: Mapping[str, str]) -> list[Path]:
    """Returns the files of a folder, if all are there with these hashes; else none."""
    paths = [folder / name for name in hashes if Path(name).name == name]
    try:
        same = bool(paths) and len(paths) == len(hashes) and file_hashes(paths) == dict(hashes)
    except OSError:
        return []
    return paths if same else []


def _file_identity(path: Path) -> tuple[Any, ...]:
    facts = path.stat()
    if facts.st_size <= WHOLE:
        return (_hash_of(path),)
    with path.open("rb") as file:
        digest = hashlib.sha256(file.read(PART))
        file.seek(-PART, 2)
        digest.update(file.read(PART))
    return facts.st_size, facts.st_mtime_ns, digest.hexdigest()


def _hash_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(PART):
            digest.update(part)
    return digest.hexdigest()
