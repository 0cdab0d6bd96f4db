"""Point maps from a picture alone, with MoGe where it is installed (Wang et al. 2025, "MoGe").

The official pipeline does the same with the same model (docs/facts.md, section S2). Nothing is fetched
here: the weights are a file of the user's.

A point map, whoever makes it, is fp32 `[H, W, 3]`: for every pixel the point that it shows, in the camera's frame of
PyTorch3D (x to the left, y up, z forward, right-handed), NaN where unknown. Units are free, but one for all pixels; a
metric map gives a metric layout. From OpenCV's frame (x to the right, y down) it is `points * [-1, -1, 1]`; from a
depth map `d` and intrinsics, `x = -(u - cx) / fx * d`, `y = -(v - cy) / fy * d`, `z = d`.
"""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastsam3d.basics.paths import user_path
from fastsam3d.basics.pixels import as_image
from fastsam3d.errors import UserError
from fastsam3d.sam3d.checkpoints.sources import MOGE_REPOSITORY

WEIGHTS = "model.pt"

FRAMES = {
    (-1, -1, 1): ("PyTorch3D", "x left, y up, z forward", (1, 1, 1)),
    (1, 1, 1): ("OpenCV", "x right, y down, z forward", (-1, -1, 1)),
    (1, -1, -1): ("OpenGL", "x right, y up, z backward", (-1, 1, -1)),
}
"""Camera frames by the signs of x along columns, of y along rows and of z: name, axes, factors to PyTorch3D's."""
DECISIVE = 0.5
"""Correlation of a ray's direction with the pixel's position from which a frame is recognised."""


def camera_frame(points: np.ndarray) -> tuple[str, str, tuple[int, int, int]] | None:
    """The camera frame that a point map `[H, W, 3]` is given in, an entry of `FRAMES`; None where that is not clear.

    Whatever the scene, the ray of a pixel further right points further right, and of one further down, further down.
    """
    height, width = points.shape[:2]
    step = max(1, int((height * width / 1e5) ** 0.5))
    sample = points[::step, ::step].astype(np.float64)
    rows, columns = np.mgrid[0:height:step, 0:width:step]
    known = np.isfinite(sample).all(axis=2) & (np.abs(sample[..., 2]) > 1e-9)
    if known.sum() < 16:
        return None
    x, y, z = sample[known].T
    sides = [np.corrcoef(x / np.abs(z), columns[known]), np.corrcoef(y / np.abs(z), rows[known])]
    signs = [int(np.sign(side[0, 1])) if abs(side[0, 1]) > DECISIVE else 0 for side in sides]
    return FRAMES.get((signs[0], signs[1], int(np.sign(np.median(z)))))


class Moge:
    """MoGe as a depth model: called with a picture, uint8 `[H, W, 3]`, it gives its point map `[H, W, 3]`.

    Args:
        model: a `MoGeModel` of MoGe's version 1, in place and in evaluation mode.
    """

    def __init__(self, model: Any) -> None:
        self.model = model

    @torch.no_grad()
    def __call__(self, image: Any) -> np.ndarray:
        """Computes the point map of a picture. Pixels that MoGe takes for sky or the like are NaN.

        Raises:
            UserError: no point is known.
        """
        pixels = torch.from_numpy(as_image(image)).movedim(-1, 0).float() / 255
        device = next(self.model.parameters()).device
        # As upstream calls it: points as predicted, not moved onto the pixels' rays.
        result = self.model.infer(pixels.to(device), force_projection=False, use_fp16=device.type == "cuda")
        points = result["points"].float().cpu() * torch.tensor([-1.0, -1.0, 1.0])
        points = torch.where(torch.isfinite(points).all(dim=-1, keepdim=True), points, torch.nan)
        if not torch.isfinite(points).any():
            raise UserError("MoGe finds no surface in the picture. Give a point map, or use depth=none.")
        return points.numpy()


def load_moge(weights: str | Path | None, device: torch.device | str = "cpu") -> Moge:
    """MoGe with weights from a file.

    Args:
        weights: the file `model.pt`, or the folder that it is in.
        device: where it runs.

    Raises:
        UserError: MoGe is not installed, there is no such device, or the file is not named, missing or no MoGe model.
    """
    from fastsam3d.basics.devices import check_device

    fetch = f"`python -m fastsam3d download model=moge` fetches {MOGE_REPOSITORY}"
    if importlib.util.find_spec("moge") is None:
        raise UserError(
            "depth=moge needs the package moge, which is not installed here: "
            "pip install git+https://github.com/microsoft/MoGe.git. Or give --pointmap FILE, or depth=none."
        )
    if weights is None:
        raise UserError(f"depth=moge needs depth_model=FILE, the weights of MoGe; {fetch}.")
    target = check_device(device)
    path = user_path(weights)
    path = path / WEIGHTS if path.is_dir() else path
    if not path.is_file():
        raise UserError(f"depth_model={weights}: there is no file {path}; {fetch}.")
    try:
        model = importlib.import_module("moge.model.v1").MoGeModel.from_pretrained(str(path))
    except Exception as error:
        text = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(
            f"{path} cannot be loaded as a model of MoGe, version 1 ({text}). Check that the file is whole and that "
            "the installed moge is of that version."
        ) from error
    return Moge(model.to(target).eval())
