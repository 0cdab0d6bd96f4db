"""Simulates a person's marks: first a click on the object or an inexact box, then clicks in the largest error."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastsam3d.evaluation.marking.quality import largest_error
from fastsam3d.marking.segmentation import Prompt

BOXES = 0.4
"""Share of the objects whose first mark is a box."""
MIDDLE = 0.6
"""Share of the clicks that are in the very middle of the region, as all clicks of the measurement are."""


def first_prompt(cv2: Any, rng: np.random.Generator, truth: np.ndarray) -> Prompt:
    """Draws a box around the object, or a click on it.

    Args:
        truth: bool `[H, W]`, not all false.
    """
    if rng.random() >= BOXES:
        return Prompt((region_click(cv2, rng, truth, True),))
    rows, columns = np.flatnonzero(truth.any(1)), np.flatnonzero(truth.any(0))
    left, top, right, bottom = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    room = rng.uniform(0, 0.03, 4) * max(truth.shape) + rng.normal(0, 0.03, 4) * max(right - left, bottom - top)
    room = np.maximum(room, -0.05 * min(right - left, bottom - top))
    height, width = truth.shape
    box = max(left - room[0], 0), max(top - room[1], 0), min(right + room[2], width), min(bottom + room[3], height)
    return Prompt((), tuple(float(value) for value in box))  # type: ignore[arg-type]


def further_prompt(cv2: Any, rng: np.random.Generator, prompt: Prompt, answer: np.ndarray, truth: np.ndarray) -> Prompt:
    """Adds a click in the largest error to the prompt; returns it unchanged if there is no error.

    Args:
        answer: bool `[H, W]`.
        truth: bool `[H, W]`.
    """
    found = largest_error(answer, truth)
    if found is None:
        return prompt
    return Prompt((*prompt.clicks, region_click(cv2, rng, *found)), prompt.box)


def region_click(cv2: Any, rng: np.random.Generator, region: np.ndarray, inside: bool) -> tuple[float, float, bool]:
    """Draws a click (x, y, inside) in a region, bool `[H, W]`: in its very middle, or somewhere well within it."""
    depth = cv2.distanceTransform(np.pad(region.astype(np.uint8), 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
    if rng.random() < MIDDLE:
        row, column = np.unravel_index(int(depth.argmax()), depth.shape)
    else:
        rows, columns = np.nonzero(depth >= 0.5 * depth.max())
        chosen = int(rng.integers(len(rows)))
        row, column = rows[chosen], columns[chosen]
    return float(column) + 0.5, float(row) + 0.5, inside
