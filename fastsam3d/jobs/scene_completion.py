"""Tells whether a scene in an output folder is complete, so that `--resume` has nothing to do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastsam3d.jobs.masks import Mask
from fastsam3d.jobs.pictures import Picture
from fastsam3d.jobs.report import REPORT, as_plain
from fastsam3d.jobs.request import Request
from fastsam3d.jobs.scene_progress import mask_hashes
from fastsam3d.jobs.writing.identity import conditions_of, plain_hash, unchanged_files

if TYPE_CHECKING:
    import numpy as np

PLACES = (
    *("output_dir", "resume", "image_path", "image_dir", "masks", "mask_path", "mask_index", "box", "point", "all"),
    *("marker", "sam_checkpoint", "sam_model", "name", "depth_model"),
)
"""Settings for places of inputs and outputs, or for making masks. Only the content of inputs and masks matters."""


def completion(request: Request, picture: Picture, pointmap: np.ndarray | None, masks: Mapping[str, Mask]) -> str:
    """Returns the hash of everything that the files of a scene depend on. It needs no loaded pipeline.

    Args:
        masks: the masks by the names of their objects.
    """
    settings = {key: value for key, value in as_plain(request).items() if key not in PLACES}
    hashes = mask_hashes(list(masks), list(masks.values()))
    return plain_hash([conditions_of(request, picture.pixels, pointmap, request.batch), settings, hashes])


def completed(folder: Path, made_of: str) -> tuple[dict[str, Any], list[Path]] | None:
    """Returns the report and all files of a complete scene; None if one is missing, changed, or of other inputs."""
    try:
        report = json.loads((folder / REPORT).read_text(encoding="utf-8"))
        facts = report["scene"]["complete"]
        paths = unchanged_files(folder, facts["files"]) if facts["made_of"] == made_of else []
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return (report, sorted([*paths, folder / REPORT])) if paths else None
