"""Polygons that flat objects of training pictures are made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Shape:
    """A polygon of one material.

    Attributes:
        polygon: corners `[N, 2]`, x to the right, y down.
        material: number of the material, 0 to 3.
        cuts: the polygon is a hole in the shapes below it.
    """

    polygon: np.ndarray
    material: int
    cuts: bool = False


Shapes = list[Shape]
_CIRCLE = np.linspace(0, 2 * np.pi, 40, endpoint=False)


def ellipse(x: float, y: float, a: float, b: float, angle: float = 0.0) -> np.ndarray:
    """Makes an ellipse `[40, 2]` of half axes a and b, turned by an angle in radians."""
    c, s = np.cos(angle), np.sin(angle)
    return np.stack([a * np.cos(_CIRCLE), b * np.sin(_CIRCLE)], axis=1) @ np.array([[c, s], [-s, c]]) + np.array([x, y])


def blob(rng: np.random.Generator, x: float, y: float, a: float, b: float, rough: float = 0.2) -> np.ndarray:
    """Makes a smooth closed curve `[40, 2]` about an ellipse, rougher with larger `rough`."""
    radius = np.ones_like(_CIRCLE)
    for order in range(2, 8):
        radius = radius + rough / order * rng.normal() * np.cos(order * _CIRCLE + rng.uniform(0, 2 * np.pi)) * 1.5
    radius = np.clip(radius, 0.3, 2.0)
    return np.stack([a * radius * np.cos(_CIRCLE), b * radius * np.sin(_CIRCLE)], axis=1) + np.array([x, y])


def box(x: float, y: float, a: float, b: float, angle: float = 0.0, taper: float = 1.0) -> np.ndarray:
    """Makes a rectangle `[4, 2]` of half sides a and b; its upper side is `taper` times as long as its lower."""
    corners = np.array([[-a * taper, -b], [a * taper, -b], [a, b], [-a, b]])
    c, s = np.cos(angle), np.sin(angle)
    return corners @ np.array([[c, s], [-s, c]]) + np.array([x, y])


def limb(points: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """Makes a polygon along a path `[N, 2]` with half widths `[N]`, round at both ends."""
    step = np.gradient(points, axis=0)
    normal = np.stack([-step[:, 1], step[:, 0]], axis=1)
    normal = normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
    left, right = points + normal * widths[:, None], points - normal * widths[:, None]
    tips = []
    for end, side in ((-1, left), (0, right)):
        start = np.arctan2(*(side[end] - points[end])[::-1])
        turns = start - np.linspace(0, np.pi, 6)[1:-1]
        tips.append(points[end] + widths[end] * np.stack([np.cos(turns), np.sin(turns)], axis=1))
    return np.concatenate([left, tips[0], right[::-1], tips[1]])


def bent_path(rng: np.random.Generator, start: np.ndarray, angle: float, length: float, bend: float) -> np.ndarray:
    """Makes a path `[9, 2]` from a point, first at an angle, then bending; angles in radians."""
    turns = angle + np.cumsum(np.full(8, bend / 8) + rng.normal(0, abs(bend) / 16 + 0.02, 8))
    steps = np.stack([np.cos(turns), np.sin(turns)], axis=1) * length / 8
    return np.concatenate([start[None], start + np.cumsum(steps, axis=0)])
