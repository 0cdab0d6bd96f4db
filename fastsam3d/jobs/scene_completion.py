"""Whether a scene in an output folder is complete, so that `--resume` has nothing to do."""

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
    *("name", "depth_model"),
)
"""Settings that say where inputs and outputs are, or how masks are made: what they are counts, not where or how."""


def completion(request: Request, picture: Picture, pointmap: np.ndarray | None, masks: Mapping[str, Mask]) -> str:
    """Hash of everything that the files of a scene depend on; known before the pipeline is loaded.

    Args:
        masks: by the name of their object.
    """
    settings = {key: value for key, value in as_plain(request).items() if key not in PLACES}
    hashes = mask_hashes(list(masks), list(masks.values()))
    return plain_hash([conditions_of(request, picture.pixels, pointmap, request.batch), settings, hashes])


def completed(folder: Path, made_of: str) -> tuple[dict[str, Any], list[Path]] | None:
    """The report and all files of a complete scene; None where one is missing, changed, or made of something else."""
    try:
        report = json.loads((folder / REPORT).read_text(encoding="utf-8"))
        facts = report["scene"]["complete"]
        paths = unchanged_files(folder, facts["files"]) if facts["made_of"] == made_of else []
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return (report, sorted([*paths, folder / REPORT])) if paths else None
