"""Finds places for labels in a plan, so that smaller objects do not hide them. A label is the number of an object."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

LARGEST, SMALLEST = 19.0, 10.5
"""Largest and smallest height of the letters, in pixels."""
HIDDEN = 0.12  # share of a label that others may hide
_PLACES = [(x, y) for y in (0.5, 0.2, 0.8) for x in (0.5, 0.2, 0.8)]  # of the middle of a label, within its object


@dataclass(frozen=True)
class Label:
    """A label of an object.

    Attributes:
        centre: (2,) pixels.
        text: the number.
        name: name of the class, below the number; empty where there is not enough space.
        size: height of the letters of the number, in pixels. Those of the name are smaller.
        crowded: whether the object is too small for the label, or other objects hide a part of it.
    """

    centre: np.ndarray
    text: str
    name: str
    size: float
    crowded: bool


def place_labels(
    corners: np.ndarray,
    order: Sequence[int] | np.ndarray,
    texts: Sequence[str],
    names: Sequence[str],
    width_of: Callable[[str, float], float],
) -> list[Label]:
    """Places one label for each object.

    Args:
        corners: (N, 2, 2) upper left and lower right corners of the objects, in pixels.
        order: indices of the objects in the order in which they are drawn. Later ones hide earlier ones.
        texts, names: number and class name of each object.
        width_of: function (text, height of the letters in pixels) -> width in pixels.
    """
    found: dict[int, Label] = {}
    taken: list[np.ndarray] = []  # corners of labels and of objects that are drawn later
    for index in reversed(list(order)):
        extents = corners[index, 1] - corners[index, 0]
        label, half = _sized(texts[index], names[index], extents, width_of)
        free = np.maximum(extents / 2 - half - 2, 0) / np.maximum(extents / 2, 1e-9)
        best, least = corners[index].mean(0), np.inf
        for place in _PLACES:
            offset = (np.array(place) - 0.5) / 0.3 * free * extents / 2
            centre = corners[index].mean(0) + offset
            hidden = _overlap(np.stack([centre - half, centre + half]), taken)
            if hidden < least - 1:
                best, least = centre, hidden
        text, name, size, fits = label
        found[index] = Label(best, text, name, size, not fits or bool(least > HIDDEN * 4 * half.prod()))
        taken += [np.stack([best - half, best + half]), corners[index]]
    return [found[index] for index in range(len(corners))]


def _sized(
    text: str, name: str, extents: np.ndarray, width_of: Callable[[str, float], float]
) -> tuple[tuple[str, str, float, bool], np.ndarray]:
    """Text, name, height and whether it fits; and half of the extents of the whole label."""
    room = extents - 6
    size = float(np.clip(min(room[1], LARGEST * room[0] / max(width_of(text, LARGEST), 1)), SMALLEST, LARGEST))
    width = width_of(text, size)
    inside = bool(width <= room[0] + 4 and size <= room[1] + 4)
    width_of_name = width_of(name, 0.72 * size)
    if size >= 13 and width_of_name <= room[0] and 1.72 * size <= room[1]:
        return (text, name, size, inside), np.array([max(width, width_of_name), 1.72 * size]) / 2
    return (text, "", size, inside), np.array([width, size]) / 2


def _overlap(corners: np.ndarray, others: Sequence[np.ndarray]) -> float:
    """Square pixels that a rectangle shares with others."""
    if not others:
        return 0.0
    stacked = np.stack(others)
    shared = np.minimum(corners[1], stacked[:, 1]) - np.maximum(corners[0], stacked[:, 0])
    return float(np.prod(np.clip(shared, 0, None), axis=1).sum())
