"""The point map of a run: from a file, from a depth model, or none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastsam3d.cli.console import Console
from fastsam3d.cli.inputs import Picture, read_pointmap

if TYPE_CHECKING:
    import numpy as np

    from fastsam3d.cli.settings import Settings


def pointmap_of(settings: Settings, picture: Picture, console: Console) -> tuple[np.ndarray | None, str | None]:
    """The point map and where it comes from, as a path or as the depth model's name.

    A file wins, the one beside the picture too; `depth` says what makes one where there is none. The depth model is
    gone again before the pipeline is loaded: the two need never fit into memory together.

    Raises:
        UserError: an unusable file, or a depth model that cannot be loaded.
    """
    pointmap, path, unused = read_pointmap(settings.pointmap, picture)
    if unused:
        console.warn(unused)
    if pointmap is not None:
        _warn_of_frame(pointmap, str(path), console)
        return pointmap, str(path)
    if settings.depth == "none":
        return None, None
    from fastsam3d.pipeline.depth import load_moge

    model = load_moge(settings.depth_model, settings.device_name())
    console.note("estimating the point map with MoGe")
    return model(picture.pixels), settings.depth


def _warn_of_frame(pointmap: np.ndarray, path: str, console: Console) -> None:
    from fastsam3d.pipeline.depth import camera_frame

    frame = camera_frame(pointmap)
    if frame is None or frame[2] == (1, 1, 1):
        return
    name, axes, factors = frame
    console.warn(
        f"{path} looks like a point map in {name}'s camera frame ({axes}), but x left, y up, z forward is meant here. "
        f"Multiply it by {list(factors)}; the layout is wrong otherwise."
    )
