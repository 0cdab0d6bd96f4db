"""Hashes of everything that makes a result, to tell whether a kept one is that of the present request."""

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
"""Of the files that weights and their settings are in."""
WHOLE = 64 * 2**20
"""Bytes up to which a weight file is read as a whole: that costs a fraction of a second."""
PART = 2**20
PACKAGE = Path(__file__).resolve().parents[2]
"""Holds the shipped weights, in a folder called as their model."""


def conditions_of(
    request: Request, picture: np.ndarray, pointmap: np.ndarray | None, batch: int | None
) -> dict[str, Any]:
    """Everything that the results of a scene depend on but its masks. How they are exported does not count."""
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
    """Hash that tells weights from others at the same path; None where a run has none.

    Of every file its name and content; of large ones size, time of the last change, and the first and last MiB.
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
    """Hash of nested plain values."""
    return hashlib.sha256(json.dumps(json.loads(json_text(value)), sort_keys=True).encode("utf-8")).hexdigest()


def content_hash(array: np.ndarray) -> str:
    """Hash of an array's shape, type and values."""
    array = np.ascontiguousarray(array)
    return hashlib.sha256(repr((array.shape, array.dtype.str)).encode() + array.tobytes()).hexdigest()


def file_hashes(paths: Iterable[Path]) -> dict[str, str]:
    """Hashes of files' contents by name."""
    return {path.name: _hash_of(path) for path in paths}


def unchanged_files(folder: Path, hashes: Mapping[str, str]) -> list[Path]:
    """The files of a folder, if all are there with these hashes; else none."""
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
