"""What stands in for segmentation in tests of everything else."""

from __future__ import annotations

import numpy as np

from fastsam3d.marking.segmentation import Prompt

PATIENCE = 600
"""Seconds that a test waits for another thread: long, because a machine may be busy, and never in vain."""


def around_marks(image: np.ndarray, prompt: Prompt) -> np.ndarray:
    """A stand-in segmenter: the box, or a disc of 12 pixels about the last click on the object."""
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]]
    if prompt.box is not None:
        left, top, right, bottom = prompt.box
        return (columns >= left) & (columns < right) & (rows >= top) & (rows < bottom)
    x, y = next((x, y) for x, y, inside in reversed(prompt.clicks) if inside)
    return (rows + 0.5 - y) ** 2 + (columns + 0.5 - x) ** 2 < 12**2
