"""Takes the picture of an object from what a pipeline is given."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor


def picture_of(images: Any) -> tuple[Tensor, Tensor] | None:
    """Picture `[H, W, 3]` and the object in it, bool `[H, W]`, of a list of one picture; None for anything else.

    The pipelines of TRELLIS have painted the background black.
    """
    if isinstance(images, Tensor) or len(images) != 1:
        return None
    pixels = torch.from_numpy(np.array(images[0].convert("RGB")))
    return pixels, pixels.amax(-1) > 0
