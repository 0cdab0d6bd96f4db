"""Animals, people and flowers of simple shapes, for training. Front is -y, up is +z."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from fastsam3d.procedural.builder import Parts
from fastsam3d.procedural.palette import DARK, WHITE, color, leaf, shade, wood


def _coat(rng: np.random.Generator) -> np.ndarray:
    """Draws the colour of a coat: brown, grey, black, white, or any colour, as for toys."""
    kind = rng.random()
    if kind < 0.45:
        return wood(rng)
    return shade(WHITE, rng.uniform(0.1, 1.0)) if kind < 0.8 else color(rng)


def animal(parts: Parts, rng: np.random.Generator) -> None:
    """Four-legged animal, standing or sitting: cat, dog, bear, horse, sheep, or something between them."""
    coat, second = _coat(rng), _coat(rng)
    long, thick = rng.uniform(0.4, 0.75), rng.uniform(0.22, 0.38)
    leg, stout = rng.uniform(0.25, 0.7), rng.uniform(0.085, 0.14)
    head = rng.uniform(0.2, 0.36)
    if rng.random() < 0.4:
        chest = (0.0, -0.2, 0.75)
        parts.ellipsoid((0, 0.15, 0.35), (thick * 1.25, 0.42, 0.38), coat)
        parts.capsule((0, 0.1, 0.4), chest, thick * 0.85, coat, smooth=0.12)
        parts.capsule((thick * 0.5, -0.3, 0.6), (thick * 0.5, -0.38, 0.08), stout, coat, smooth=0.05, mirror=True)
        parts.ellipsoid((thick * 1.0, -0.15, 0.13), (0.14, 0.32, 0.13), coat, smooth=0.05, mirror=True)
        top = np.array([0.0, -0.32, 0.85 + head])
    else:
        z = leg + thick
        parts.capsule((0, -long, z), (0, long, z), thick, coat)
        for y in (-long, long):
            parts.capsule((thick * 0.6, y, z), (thick * 0.6, y, stout), stout, second, smooth=0.05, mirror=True)
        rise, reach = rng.uniform(0.05, 0.7), rng.uniform(0.1, 0.4)
        top = np.array([0.0, -long - reach - head * 0.5, z + rise + head * 0.4])
        parts.capsule((0, -long, z + 0.05), top, thick * rng.uniform(0.45, 0.75), coat, smooth=0.1)
    _head(parts, rng, top, head, coat, second)
    tail = np.array([rng.uniform(-0.25, 0.25), rng.uniform(0.2, 0.6), rng.uniform(-0.2, 0.6)])
    root = np.array([0.0, long if leg and top[1] < -0.6 else 0.5, leg + thick if top[1] < -0.6 else 0.2])
    parts.capsule(root, root + tail, rng.uniform(0.06, 0.11), second, smooth=0.05)


def _head(
    parts: Parts, rng: np.random.Generator, top: np.ndarray, size: float, coat: ArrayLike, second: ArrayLike
) -> None:
    parts.ellipsoid(top, (size, size, size * 0.92), coat, smooth=0.06)
    snout = rng.uniform(0.3, 0.9) * size
    parts.capsule(top, np.add(top, (0, -size * 0.6 - snout, -size * 0.3)), size * 0.42, second, smooth=0.06)
    parts.ellipsoid(np.add(top, (0, -size * 1.0 - snout, -size * 0.22)), 0.07, DARK)
    parts.ellipsoid(np.add(top, (size * 0.45, -size * 0.8, size * 0.25)), 0.06, DARK, mirror=True)
    ear, style = rng.uniform(0.12, 0.3), rng.integers(3)
    root = np.add(top, (size * 0.6, 0, size * 0.6))
    if style == 0:
        parts.cone(root, np.add(root, (0.05, 0, ear + 0.1)), 0.14, 0.05, coat, mirror=True)
    elif style == 1:
        parts.ellipsoid(root, (0.13, 0.07, 0.13), second, mirror=True)
    else:
        parts.capsule(root, np.add(root, (0.12, 0, -ear)), 0.09, second, mirror=True)


def bird(parts: Parts, rng: np.random.Generator) -> None:
    """Sitting or spread-winged bird, duck or penguin."""
    coat, second = _coat(rng), color(rng)
    long, thick = rng.uniform(0.4, 0.6), rng.uniform(0.24, 0.36)
    tilt = rng.uniform(0.0, 0.6)
    chest, rear = np.array([0, -long * 0.6, 0.5 + tilt * 0.5]), np.array([0, long * 0.7, 0.45 - tilt * 0.2])
    parts.capsule(chest, rear, thick, coat)
    head = rng.uniform(0.16, 0.26)
    top = np.add(chest, (0, -0.1, thick + rng.uniform(0.05, 0.5)))
    parts.capsule(chest, top, thick * 0.5, coat, smooth=0.1)
    parts.ellipsoid(top, head, coat if rng.random() < 0.6 else second, smooth=0.05)
    parts.cone(
        np.add(top, (0, -head * 0.7, 0)),
        np.add(top, (0, -head - rng.uniform(0.15, 0.35), -0.03)),
        0.09,
        0.05,
        (0.9, 0.6, 0.1),
    )
    parts.ellipsoid(np.add(top, (head * 0.6, -head * 0.6, 0.05)), 0.06, DARK, mirror=True)
    parts.box(np.add(rear, (0, 0.25, 0.0)), (thick * 0.5, 0.25, 0.06), second)
    if rng.random() < 0.3:
        parts.ellipsoid((thick + 0.35, 0, 0.55), (0.5, 0.22, 0.07), second, mirror=True)
    else:
        parts.ellipsoid((thick * 0.9, 0.1, 0.5), (0.09, long * 0.75, thick * 0.7), second, mirror=True)
    if rng.random() < 0.7:
        parts.cylinder((0.12, 0, 0.3), (0.12, -0.03, 0.0), 0.06, (0.9, 0.6, 0.1), mirror=True)


def fish(parts: Parts, rng: np.random.Generator) -> None:
    """Fish or whale, head to one side so that the broad side faces the camera."""
    tint, second = color(rng), color(rng)
    long, tall, thick = rng.uniform(0.5, 0.75), rng.uniform(0.22, 0.42), rng.uniform(0.12, 0.25)
    parts.ellipsoid((0, 0, 0), (long, thick, tall), tint)
    parts.cone((long * 0.7, 0, 0), (long * 1.5, 0, 0), 0.07, tall * 0.9, second, rounding=0.05)
    parts.box((long * 1.2, 0.5, 0), (long, 0.5 - 0.08, 1), tint, subtract=True)
    parts.box((long * 1.2, -0.5, 0), (long, 0.5 - 0.08, 1), tint, subtract=True)
    parts.box((0, 0, tall), (long * 0.35, 0.06, rng.uniform(0.1, 0.25)), second)
    parts.ellipsoid((-long * 0.65, -thick * 0.6, tall * 0.15), 0.07, DARK)
    parts.ellipsoid((-long * 0.65, thick * 0.6, tall * 0.15), 0.07, DARK)


def person(parts: Parts, rng: np.random.Generator) -> None:
    """Standing person or statue, or the head and shoulders of one."""
    skin = np.array([0.95, 0.76, 0.62]) * rng.uniform(0.35, 1.0)
    shirt, trousers, hair = color(rng), color(rng), wood(rng) * rng.uniform(0.2, 1.0)
    if rng.random() < 0.35:
        parts.ellipsoid((0, 0, 0), (rng.uniform(0.6, 0.75), 0.3, 0.35), shirt)
        parts.box((0, 0, -0.3), (0.55, 0.24, 0.25), shirt, rounding=0.1)
        parts.cylinder((0, 0, 0.2), (0, 0, 0.55), 0.17, skin)
        parts.ellipsoid((0, -0.03, 0.8), (0.3, 0.34, 0.4), skin)
        parts.ellipsoid((0, 0.06, 0.92), (0.34, 0.34, 0.36), hair)
        parts.ellipsoid((0, -0.4, 0.75), 0.07, skin)
        return
    wide, spread = rng.uniform(0.2, 0.3), rng.uniform(0.02, 0.25)
    hip, chest = 0.85, 1.45
    parts.capsule((0, 0, hip + 0.1), (0, 0, chest), wide, shirt)
    if rng.random() < 0.25:
        parts.cone((0, 0, 0.1), (0, 0, hip + 0.2), wide * 1.8, wide, trousers, rounding=0.05)
    else:
        parts.capsule((wide * 0.5, 0, hip), (wide * 0.5 + spread, 0, 0.1), 0.13, trousers, mirror=True)
    arm = np.array([wide + rng.uniform(0.1, 0.6), rng.uniform(-0.4, 0.1), rng.uniform(0.7, 1.7)])
    parts.capsule((wide, 0, chest), arm, 0.1, skin if rng.random() < 0.5 else shirt, mirror=True)
    parts.ellipsoid((0, 0, chest + 0.5), (0.18, 0.2, 0.23), skin)
    parts.ellipsoid((0, 0.05, chest + 0.58), (0.2, 0.2, 0.2), hair)


def flower(parts: Parts, rng: np.random.Generator) -> None:
    """Single flower: petals around a heart, facing the front or up, with or without stem and leaves."""
    tint, heart = color(rng), color(rng, hue=(0.08, 0.18))
    petals, reach = int(rng.integers(5, 11)), rng.uniform(0.35, 0.55)
    facing = rng.random() < 0.6
    for angle in np.arange(petals) * 2 * np.pi / petals:
        a, b = reach * np.cos(angle), reach * np.sin(angle)
        inner, outer = ((a * 0.4, -0.03, b * 0.4), (a, -0.08, b)) if facing else ((a * 0.4, b * 0.4, 0), (a, b, 0.12))
        parts.capsule(inner, outer, rng.uniform(0.11, 0.17), tint)
    parts.ellipsoid((0, -0.12, 0) if facing else (0, 0, 0.12), reach * 0.4, heart)
    if rng.random() < 0.6:
        down = rng.uniform(0.7, 1.3)
        parts.capsule((0, 0.05, 0), (0, 0.1, -down), 0.06, leaf(rng))
        parts.ellipsoid((0.2, 0.08, -down * 0.6), (0.22, 0.07, 0.09), leaf(rng), mirror=rng.random() < 0.5)
