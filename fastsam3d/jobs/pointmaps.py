"""The point map of a run: from a file, from a depth model, or none."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fastsam3d.basics.paths import user_path
from fastsam3d.errors import UserError
from fastsam3d.jobs.listener import Listener
from fastsam3d.jobs.pictures import Picture, load_numbers
from fastsam3d.jobs.request import Request

POINTMAP = "pointmap.npy"
"""Name of a point map beside its picture."""


def pointmap_of(request: Request, picture: Picture, listener: Listener) -> tuple[np.ndarray | None, str | None]:
    """The point map and where it comes from, as a path or as the depth model's name.

    A file wins, the one beside the picture too; `depth` says what makes one where there is none. The depth model is
    gone again before the pipeline is loaded: the two need never fit into memory together.

    Raises:
        UserError: an unusable file, or a depth model that cannot be loaded.
    """
    pointmap, path, unused = read_pointmap(request.pointmap, picture)
    if unused:
        listener.warn(unused)
    if pointmap is not None:
        _warn_of_frame(pointmap, str(path), listener)
        return pointmap, str(path)
    if request.depth == "none":
        return None, None
    from fastsam3d.sam3d.depth import load_moge

    model = load_moge(request.depth_model, request.device_name())
    listener.note("estimating the point map with MoGe")
    return model(picture.pixels), request.depth


def _warn_of_frame(pointmap: np.ndarray, path: str, listener: Listener) -> None:
    from fastsam3d.sam3d.depth import camera_frame

    frame = camera_frame(pointmap)
    if frame is None or frame[2] == (1, 1, 1):
        return
    name, axes, factors = frame
    listener.warn(
        f"{path} looks like a point map in {name}'s camera frame ({axes}), but x left, y up, z forward is meant here. "
        f"Multiply it by {list(factors)}; the layout is wrong otherwise."
    )


def read_pointmap(choice: str, picture: Picture) -> tuple[np.ndarray | None, Path | None, str | None]:
    """A point map by the setting `pointmap`: `auto`, `none` or a file.

    Returns:
        (fp32 `[H, W, 3]` or None, its file or None, why one beside the picture is not used or None).

    Raises:
        UserError: a file that was asked for is missing, unreadable or does not fit the picture.
    """
    if choice in ("none", "null", "None"):
        return None, None, None
    path = picture.path.parent / POINTMAP if choice == "auto" else user_path(choice)
    if choice == "auto" and not path.is_file():
        return None, None, None
    from fastsam3d.sam3d.pipeline.preprocessing import as_pointmap

    try:
        points = _load_points(path)
        try:
            known = as_pointmap(points, *picture.size)
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
        if not bool(known.isfinite().any()):
            raise UserError(f"{path} holds no finite point. Compute it again, or give --pointmap none.")
    except UserError as error:
        if choice != "auto":
            raise
        return None, None, f"the point map beside the picture is not used: {error}"
    return points, path, None


def _load_points(path: Path) -> np.ndarray:
    if not path.is_file():
        raise UserError(f"there is no point map {path}. Give an .npy file, or --pointmap none.")
    return load_numbers(path, f"the point map {path}").astype(np.float32)
