"""Colours of parts."""

from __future__ import annotations

import colorsys

import numpy as np
from numpy.typing import ArrayLike


def color(rng: np.random.Generator, pale: bool = False, hue: tuple[float, float] = (0.0, 1.0)) -> np.ndarray:
    """A random saturated (or pale) colour; one in six is grey."""
    saturation = rng.uniform(0.1, 0.4) if pale else rng.uniform(0.45, 0.95)
    if hue == (0.0, 1.0) and rng.random() < 1 / 6:
        saturation *= 0.1
    value = rng.uniform(0.8, 1.0) if pale else rng.uniform(0.35, 0.95)
    return np.array(colorsys.hsv_to_rgb(rng.uniform(*hue) % 1.0, saturation, value))


def wood(rng: np.random.Generator) -> np.ndarray:
    """A brown."""
    return np.array(colorsys.hsv_to_rgb(rng.uniform(0.05, 0.1), rng.uniform(0.4, 0.75), rng.uniform(0.3, 0.8)))


def leaf(rng: np.random.Generator) -> np.ndarray:
    """A leaf colour, mostly green, sometimes autumnal."""
    hue = (0.25, 0.42) if rng.random() < 0.8 else (0.03, 0.14)
    return color(rng, hue=hue)


def shade(tint: ArrayLike, factor: float) -> np.ndarray:
    """A brighter or darker version."""
    return np.clip(np.asarray(tint, float) * factor, 0.0, 1.0)


DARK = np.array([0.08, 0.08, 0.09])
GLASS = np.array([0.55, 0.75, 0.88])
METAL = np.array([0.7, 0.71, 0.74])
WHITE = np.array([0.94, 0.94, 0.95])
