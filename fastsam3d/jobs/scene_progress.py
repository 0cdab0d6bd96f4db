"""Keeps the finished objects of an interrupted scene on disk, so that `--resume` can go on with it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastsam3d.basics.paths import user_path
from fastsam3d.basics.version import __version__
from fastsam3d.errors import UserError
from fastsam3d.jobs.masks import Mask
from fastsam3d.jobs.output_folder import json_text

if TYPE_CHECKING:
    from fastsam3d.jobs.request import Request
    from fastsam3d.sam3d.pipeline.reconstruction import Reconstruction

FOLDER = ".scene"
CONDITIONS, SUFFIX = "conditions.json", ".safetensors"
WHAT = {"image": "the picture", "pointmap": "the point map", "version": "the version of fastsam3d"}


class SceneProgress:
    """Finished objects of a scene in a hidden folder of its output folder.

    Args:
        output: the output folder, which need not exist.
        conditions: what the results depend on, see `conditions_of`.
        masks: hashes of the masks by object name.
    """

    def __init__(self, output: str | Path, conditions: Mapping[str, Any], masks: Mapping[str, str]) -> None:
        self.folder = user_path(output) / FOLDER
        self.conditions, self.masks = dict(conditions), dict(masks)
        self.kept = 0

    def load(self) -> dict[str, Reconstruction]:
        """Objects that are finished, by name; none where nothing was left.

        Raises:
            UserError: what is there was made with other settings, another picture or other masks, or is damaged.
        """
        from fastsam3d.sam3d.scene.storage import load_reconstruction

        path = self.folder / CONDITIONS
        if not path.is_file():
            return {}
        way_out = "Give what was given before, or leave --resume out to begin anew."
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
            known, masks = before["conditions"], before["masks"]
        except (OSError, ValueError, KeyError, TypeError):
            raise UserError(f"--resume: {path} is damaged. Leave --resume out to begin anew.") from None
        now = json.loads(json_text(self.conditions))
        for key in sorted({*known, *now}):
            if known.get(key) != now.get(key):
                raise UserError(f"--resume: {_difference(key, known.get(key), now.get(key))}. {way_out}")
        changed = [name for name, value in self.masks.items() if masks.get(name, value) != value]
        if changed:
            raise UserError(f"--resume: the mask of {changed[0]} is not the one of before. {way_out}")
        files = {name: self.folder / f"{name}{SUFFIX}" for name in self.masks}
        found = {name: load_reconstruction(file) for name, file in files.items() if file.is_file()}
        self.kept = len(found)
        return found

    def begin(self) -> bool:
        """Removes what an earlier scene left; returns whether there was anything."""
        found = self.folder.is_dir()
        shutil.rmtree(self.folder, ignore_errors=True)
        return found

    def keep(self, name: str, result: Reconstruction) -> None:
        """Keeps a finished object.

        Raises:
            UserError: it cannot be written.
        """
        from fastsam3d.basics.files import write_atomically
        from fastsam3d.sam3d.scene.storage import save_reconstruction

        state = {"conditions": self.conditions, "masks": self.masks}
        try:
            write_atomically(self.folder / CONDITIONS, json_text(state).encode("utf-8"))
            save_reconstruction(result, self.folder / f"{name}{SUFFIX}")
        except UserError:
            if not self.kept:
                self.begin()  # nothing to go on with: no folder either
            raise
        self.kept += 1


def conditions_of(request: Request, picture: np.ndarray, pointmap: np.ndarray | None, batch: int) -> dict[str, Any]:
    """Collects everything that the results of a scene depend on, except its masks and the export of files."""
    return {
        "version": __version__,
        "image": content_hash(picture),
        "pointmap": None if pointmap is None else content_hash(pointmap),
        "model": request.model,
        "checkpoint_dir": request.checkpoint_dir,
        "random_weights": request.random_weights,
        "samplers": request.samplers,
        "acceleration": request.acceleration.to_dict(),
        "seed": request.seed,
        "precision": request.precision,
        "formats": list(request.formats),
        "device": request.device_name(),
        "batch": batch,
    }


def mask_hashes(names: Sequence[str], masks: Sequence[Mask]) -> dict[str, str]:
    """Hashes of the masks' pixels by object name."""
    return {name: content_hash(mask.pixels) for name, mask in zip(names, masks, strict=True)}


def content_hash(array: np.ndarray) -> str:
    """Hash of an array's shape, type and values."""
    array = np.ascontiguousarray(array)
    return hashlib.sha256(repr((array.shape, array.dtype.str)).encode() + array.tobytes()).hexdigest()


def _difference(key: str, before: Any, now: Any) -> str:
    if key in WHAT:
        return f"{WHAT[key]} is not the one of before"
    if isinstance(before, dict) and isinstance(now, dict):
        inner = next((k for k in {**before, **now} if before.get(k) != now.get(k)), None)
        if inner is not None:
            return _difference(f"{key}.{inner}", before.get(inner), now.get(inner))
    return f"{key} was {json.dumps(before)} and is {json.dumps(now)}"
