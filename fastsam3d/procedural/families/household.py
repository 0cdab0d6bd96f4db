"""Everyday things for training: dishes, fruit, clothes, devices, composites of random parts. Front is -y, up +z."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from fastsam3d.procedural.builder import Parts, about
from fastsam3d.procedural.palette import DARK, METAL, WHITE, color, leaf, shade, wood


def bowl(parts: Parts, rng: np.random.Generator) -> None:
    """Open bowl or plate on a foot, empty or filled."""
    tint, inner = color(rng, pale=rng.random() < 0.4), color(rng)
    radius, height = rng.uniform(0.6, 0.9), rng.uniform(0.3, 0.7)
    parts.cone((0, 0, 0.08), (0, 0, height), radius * rng.uniform(0.35, 0.7), radius, tint, rounding=0.06)
    parts.cylinder((0, 0, 0), (0, 0, 0.14), radius * 0.4, shade(tint, 0.9))
    parts.cone((0, 0, 0.24), (0, 0, height + 0.2), radius * 0.45, radius * 1.02, inner, subtract=True)
    if rng.random() < 0.5:
        load = color(rng)
        for angle in rng.uniform(0, 2 * np.pi, int(rng.integers(1, 5))):
            size = rng.uniform(0.12, 0.28)
            place = (0.35 * radius * np.cos(angle), 0.35 * radius * np.sin(angle), height * 0.7)
            parts.ellipsoid(place, (size, size, size), shade(load, rng.uniform(0.7, 1.2)))


def cup_and_saucer(parts: Parts, rng: np.random.Generator) -> None:
    """Cup with a ring handle to one side, on a flat saucer; often with a drink in it."""
    tint = color(rng, pale=rng.random() < 0.6)
    radius, height = rng.uniform(0.3, 0.42), rng.uniform(0.4, 0.65)
    if rng.random() < 0.8:
        wide = rng.uniform(0.62, 0.85)
        parts.cone((0, 0, 0), (0, 0, 0.12), wide * 0.7, wide, shade(tint, rng.uniform(0.85, 1.1)), rounding=0.04)
    parts.cone((0, 0, 0.08), (0, 0, 0.1 + height), radius * rng.uniform(0.55, 0.9), radius, tint, rounding=0.04)
    drink = np.array([0.3, 0.18, 0.1]) if rng.random() < 0.6 else color(rng)
    level = 0.1 + height * rng.uniform(0.7, 0.95)
    parts.cylinder((0, 0, level), (0, 0, height + 0.4), radius - 0.08, DARK, subtract=True)
    parts.cylinder((0, 0, level - 0.1), (0, 0, level), radius - 0.06, drink)
    side = rng.uniform(0, 2 * np.pi)
    place = (radius * 0.98 * np.cos(side), radius * 0.98 * np.sin(side), 0.12 + height * 0.5)
    parts.torus(place, height * 0.3, 0.06, tint, rotation=_upright_ring(side))


def _upright_ring(side: float) -> tuple[float, ...]:
    """Returns the rotation of a torus whose plane contains the z axis and the direction `side` in the ground plane."""
    tilt = np.array(about("x", 90))
    turn = np.array(about("z", float(np.rad2deg(side))))
    w, x, y, z = turn
    a, b, c, d = tilt
    return (
        float(w * a - x * b - y * c - z * d),
        float(w * b + x * a + y * d - z * c),
        float(w * c - x * d + y * a + z * b),
        float(w * d + x * c - y * b + z * a),
    )


def teapot(parts: Parts, rng: np.random.Generator) -> None:
    """Round pot or kettle: body, lid with a knob, spout to the front, handle behind or above."""
    tint = METAL * rng.uniform(0.6, 1.0) if rng.random() < 0.3 else color(rng)
    radius, tall = rng.uniform(0.4, 0.55), rng.uniform(0.35, 0.55)
    parts.ellipsoid((0, 0, tall), (radius, radius, tall), tint)
    parts.cylinder((0, 0, tall * 1.75), (0, 0, tall * 2.0), radius * 0.5, shade(tint, 0.85), rounding=0.04)
    parts.ellipsoid((0, 0, tall * 2.1), 0.1, color(rng))
    parts.cone((0, -radius * 0.7, tall * 0.8), (0, -radius * 1.6, tall * 1.7), 0.15, 0.08, tint, smooth=0.08)
    if rng.random() < 0.6:
        parts.torus((0, radius * 1.0, tall * 1.05), tall * 0.55, 0.075, tint, rotation=about("y", 90))
    else:
        parts.torus((0, 0, tall * 1.9), radius * 0.8, 0.07, DARK, rotation=about("y", 90))


def bag(parts: Parts, rng: np.random.Generator) -> None:
    """Handbag, shopping bag, suitcase or rucksack."""
    tint = wood(rng) if rng.random() < 0.3 else color(rng)
    x, y, z = rng.uniform(0.4, 0.7), rng.uniform(0.14, 0.32), rng.uniform(0.35, 0.75)
    parts.box((0, 0, z), (x, y, z), tint, rounding=rng.uniform(0.04, 0.2))
    if rng.random() < 0.5:
        parts.box((0, -y, z * 0.8), (x * 0.7, 0.07, z * 0.45), shade(tint, 0.75), rounding=0.06)
    style = rng.integers(3)
    if style == 0:
        parts.torus((0, 0, 2 * z), x * 0.55, 0.065, shade(tint, 0.6), rotation=about("x", 90))
    elif style == 1:
        for side in (-y * 0.7, y * 0.7):
            parts.torus((0, side, 2 * z), x * 0.45, 0.06, shade(tint, 0.6), rotation=about("x", 90))
    else:
        parts.box((0, 0, 2 * z + 0.12), (x * 0.3, 0.06, 0.06), DARK)
        parts.box((x * 0.27, 0, 2 * z + 0.05), (0.06, 0.06, 0.12), DARK, mirror=True)


def shoe(parts: Parts, rng: np.random.Generator) -> None:
    """Shoe, boot or high heel, toe to the front."""
    tint, sole = color(rng), (WHITE if rng.random() < 0.4 else DARK)
    long, wide = rng.uniform(0.75, 0.95), rng.uniform(0.26, 0.36)
    heel = rng.uniform(0.2, 0.5) if rng.random() < 0.25 else 0.0
    parts.box((0, 0, 0.08), (wide, long, 0.08), sole, rounding=0.07)
    if heel:
        parts.cylinder((0, long * 0.75, 0), (0, long * 0.75, heel), 0.1, sole)
    parts.ellipsoid((0, -long * 0.5, 0.2), (wide, long * 0.5, rng.uniform(0.2, 0.32)), tint)
    shaft = rng.uniform(0.8, 1.3) if rng.random() < 0.35 else rng.uniform(0.4, 0.6)
    parts.box((0, long * 0.45, 0.25 + heel / 2), (wide * 0.9, long * 0.5, 0.22), tint, rounding=0.15, smooth=0.1)
    parts.cylinder((0, long * 0.55, 0.3), (0, long * 0.55, shaft), wide * 0.85, tint, smooth=0.1)
    parts.cylinder((0, long * 0.55, shaft * 0.75), (0, long * 0.55, shaft + 0.3), wide * 0.6, DARK, subtract=True)


def device(parts: Parts, rng: np.random.Generator) -> None:
    """Telephone, tablet, radio, screen or camera: a body with a face, buttons and perhaps a lens or foot."""
    body = shade(WHITE, rng.uniform(0.1, 1.0)) if rng.random() < 0.6 else color(rng)
    x, z = rng.uniform(0.3, 0.9), rng.uniform(0.4, 0.8)
    y = rng.uniform(0.07, 0.12) if rng.random() < 0.5 else rng.uniform(0.15, 0.4)
    parts.box((0, 0, z), (x, y, z), body, rounding=rng.uniform(0.03, 0.12))
    face = DARK if rng.random() < 0.5 else color(rng)
    parts.box((0, -y, z * 1.1), (x * 0.88, 0.062, z * rng.uniform(0.5, 0.8)), face)
    style = rng.integers(3)
    if style == 0:
        parts.cylinder((0, -y, z), (0, -y - rng.uniform(0.15, 0.4), z), min(x, z) * 0.6, DARK)
    elif style == 1:
        parts.cylinder((0, 0, -0.2), (0, 0, 0.1), 0.09, body)
        parts.box((0, 0, -0.22), (x * 0.5, y + 0.15, 0.06), body)
    elif rng.random() < 0.5:
        parts.ellipsoid((x * 0.5, -y, z * 0.3), 0.09, color(rng), mirror=True)


def fruit(parts: Parts, rng: np.random.Generator) -> None:
    """Apple, pear, banana, carrot, pumpkin, or a small bunch of round ones."""
    tint = color(rng, hue=(-0.05, 0.36))
    style = rng.integers(5)
    if style == 0:
        parts.ellipsoid((0, 0, 0), (0.5, 0.5, rng.uniform(0.4, 0.5)), tint)
        parts.ellipsoid((0, 0, 0.6), 0.2, DARK, subtract=True)
        parts.cylinder((0, 0, 0.35), (0.05, 0, 0.65), 0.055, wood(rng))
    elif style == 1:
        parts.ellipsoid((0, 0, 0), (0.45, 0.45, 0.42), tint)
        parts.ellipsoid((0, 0, 0.45), (0.25, 0.25, rng.uniform(0.25, 0.4)), tint, smooth=0.2)
        parts.cylinder((0, 0, 0.6), (0, 0, 0.95), 0.05, wood(rng))
    elif style == 2:
        bend, thick = rng.uniform(0.15, 0.45), rng.uniform(0.12, 0.2)
        angles = np.linspace(-1.0, 1.0, 5)
        places = [(0.9 * np.sin(a), 0.0, bend * 2 * (1 - np.cos(a))) for a in angles]
        for start, end in pairwise(places):
            parts.capsule(start, end, thick, tint, smooth=0.06)
        parts.ellipsoid(places[-1], 0.09, DARK)
    elif style == 3:
        parts.cone((0, 0, 0), (0, 0, 1.1), 0.06, rng.uniform(0.2, 0.32), tint, rounding=0.05)
        for _ in range(3):
            top = (rng.uniform(-0.3, 0.3), rng.uniform(-0.3, 0.3), rng.uniform(1.4, 1.7))
            parts.capsule((0, 0, 1.1), top, 0.07, leaf(rng))
    else:
        for _ in range(int(rng.integers(3, 8))):
            size = rng.uniform(0.22, 0.34)
            parts.ellipsoid(rng.uniform(-0.4, 0.4, 3), size, shade(tint, rng.uniform(0.8, 1.15)))


def hat(parts: Parts, rng: np.random.Generator) -> None:
    """Brimmed hat, cap or helmet."""
    tint = color(rng)
    radius, tall = rng.uniform(0.38, 0.5), rng.uniform(0.25, 0.6)
    style = rng.integers(3)
    if style == 0:
        parts.cylinder((0, 0, 0), (0, 0, 0.1), radius * rng.uniform(1.5, 2.1), tint, rounding=0.04)
        parts.cone((0, 0, 0), (0, 0, tall + 0.1), radius, radius * 0.85, tint, rounding=0.1)
        parts.cylinder((0, 0, 0.1), (0, 0, 0.24), radius + 0.03, color(rng))
    else:
        parts.ellipsoid((0, 0, 0.05), (radius, radius * 1.1, tall + 0.1), tint)
        parts.box((0, 0, -0.6), (1, 1, 0.6), tint, subtract=True)
        if style == 1:
            parts.box((0, -radius * 1.3, 0.07), (radius * 0.75, radius * 0.6, 0.06), shade(tint, 0.7), rounding=0.05)


def composite(parts: Parts, rng: np.random.Generator) -> None:
    """Random parts grown one on another, often mirrored: shapes that belong to no family."""
    tints = [color(rng) for _ in range(3)]
    smooth = float(rng.choice([0.0, 0.08, 0.2]))
    place = np.zeros(3)
    mirrored = rng.random() < 0.6
    for _ in range(int(rng.integers(2, 8))):
        tint = tints[int(rng.integers(3))]
        size = rng.uniform(0.12, 0.6, 3)
        style = rng.integers(4)
        options = {"smooth": smooth, "mirror": mirrored and abs(place[0]) > 0.05}
        if style == 0:
            turn = about("xyz"[int(rng.integers(3))], float(rng.uniform(-45, 45)))
            parts.box(place, size, tint, rounding=rng.uniform(0.02, 0.15), rotation=turn, **options)
        elif style == 1:
            parts.ellipsoid(place, size, tint, **options)
        elif style == 2:
            end = place + rng.uniform(-0.6, 0.6, 3) + [0, 0, 0.1]
            parts.cone(place, end, size[0] * 0.6, size[1] * 0.6, tint, rounding=0.03, **options)
        else:
            parts.capsule(place, place + rng.uniform(-0.8, 0.8, 3) + [0, 0, 0.1], size[0] * 0.5, tint, **options)
        place = place + rng.uniform(-0.7, 0.7, 3)
