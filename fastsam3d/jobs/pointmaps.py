"""Finds the point map of a run: from a file, from a depth model, or none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fastsam3d.basics.paths import user_path
from fastsam3d.errors import UserError
from fastsam3d.jobs.listener import Listener
from fastsam3d.jobs.masks import Mask
from fastsam3d.jobs.pictures import Picture, load_numbers
from fastsam3d.jobs.request import Request

POINTMAP = "pointmap.npy"
"""Name of a point map beside its picture."""


def pointmap_of(request: Request, picture: Picture, listener: Listener) -> tuple[np.ndarray | None, str | None]:
    """Returns the point map, and its source: a path or the depth model's name.

    A file is used first, also the file beside the picture. If there is none, `depth` names the model that makes a map.
    The depth model is freed before the pipeline is loaded, so that memory need not hold both.

    Raises:
        UserError: the file cannot be used, or the depth model cannot be loaded.
    """
    pointmap, path, said = read_pointmap(request.pointmap, picture)
    if said:
        listener.warn(said)
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
    """Reads the point map of the setting `pointmap`: `auto`, `none` or a file.

    Returns:
        (fp32 `[H, W, 3]`, NaN where unknown, or None; its file or None; a note or None: how many of its points count
        as unknown without being NaN, or why the map beside the picture is not used).

    Raises:
        UserError: a file that the user named is missing or unreadable, or does not fit the picture.
    """
    if choice in ("none", "null", "None"):
        return None, None, None
    path = picture.path.parent / POINTMAP if choice == "auto" else user_path(choice)
    if choice == "auto" and not path.is_file():
        return None, None, None
    import torch

    from fastsam3d.sam3d.pipeline.preprocessing import as_pointmap
    from fastsam3d.sam3d.pipeline.unknown_points import known_points

    try:
        points = _load_points(path)
        try:
            as_pointmap(points, *picture.size)
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
        known = known_points(torch.from_numpy(points)).numpy()
        if not np.isfinite(known).any():
            some = "no point in front of the camera" if np.isfinite(points).any() else "no finite point"
            raise UserError(f"{path} holds {some}{_frame_hint(points)}. Compute it again, or give --pointmap none.")
    except UserError as error:
        if choice != "auto":
            raise
        return None, None, f"the point map beside the picture is not used: {error}"
    return known, path, _unknown(points, known, path)


def unknown_depths(pointmap: np.ndarray | None, masks: Sequence[Mask]) -> list[str]:
    """Returns warnings about objects on which a point map has no depth, before any work."""
    if pointmap is None or not masks:
        return []
    import torch

    from fastsam3d.sam3d.pipeline.preprocessing import as_pointmap
    from fastsam3d.sam3d.pipeline.unknown_points import missing_depth

    points = as_pointmap(pointmap, *masks[0].pixels.shape)
    return [text for mask in masks if (text := missing_depth(points, torch.from_numpy(mask.pixels))) is not None]


def _unknown(points: np.ndarray, known: np.ndarray, path: Path) -> str | None:
    there = np.isfinite(known).all(axis=2)
    kinds = {
        "zero": (points == 0).all(axis=2),
        "behind the camera": np.isfinite(points).all(axis=2) & (points[..., 2] <= 0),
        "infinite": np.isinf(points).any(axis=2),
        "too far away": np.isfinite(points).all(axis=2) & (points[..., 2] > 0) & ~there,
    }
    kinds["behind the camera"] &= ~kinds["zero"]
    parts = [f"{share:.1%} {kind}" for kind, where in kinds.items() if (share := float(where.mean())) > 0]
    return f"points of {path} are taken as unknown: {', '.join(parts)}." if parts else None


def _frame_hint(points: np.ndarray) -> str:
    from fastsam3d.sam3d.depth import camera_frame

    frame = camera_frame(points)
    if frame is None or frame[2] == (1, 1, 1):
        return ""
    return f": it looks like {frame[0]}'s camera frame ({frame[1]}), so multiply it by {list(frame[2])}"


def _load_points(path: Path) -> np.ndarray:
    if not path.is_file():
        raise UserError(f"there is no point map {path}. Give an .npy file, or --pointmap none.")
    return load_numbers(path, f"the point map {path}").astype(np.float32)
