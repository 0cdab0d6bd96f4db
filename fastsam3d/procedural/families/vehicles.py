"""Vehicles and buildings. Front is -y, up is +z."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from fastsam3d.procedural.builder import Parts, about
from fastsam3d.procedural.palette import DARK, GLASS, METAL, WHITE, color, shade


def _wheels(
    parts: Parts,
    rng: np.random.Generator,
    x: float,
    positions: Iterable[float],
    radius: float,
    thick: float = 0.1,
) -> None:
    hub = METAL if rng.random() < 0.6 else color(rng)
    for y in positions:
        parts.cylinder((x - thick, y, radius), (x + thick, y, radius), radius, DARK, rounding=0.04, mirror=True)
        parts.cylinder((x, y, radius), (x + thick * 1.2, y, radius), radius * 0.5, hub, mirror=True)


def car(parts: Parts, rng: np.random.Generator) -> None:
    """Saloon, hatchback, beetle or pick-up."""
    tint = color(rng)
    x, y, radius = rng.uniform(0.38, 0.46), rng.uniform(0.8, 1.05), rng.uniform(0.19, 0.25)
    low = radius * 0.8
    body = rng.uniform(0.15, 0.21)
    parts.box((0, 0, low + body), (x, y, body), tint, rounding=rng.uniform(0.05, 0.12))
    roof, z = rng.uniform(0.16, 0.24), low + 2 * body
    style = rng.integers(4)
    if style == 0:
        parts.box((0, 0.1, z + roof * 0.7), (x * 0.88, y * 0.5, roof), GLASS, rounding=0.12)
        parts.box((0, 0.1, z + roof * 1.5), (x * 0.82, y * 0.4, 0.07), tint, rounding=0.05)
    elif style == 1:
        parts.box((0, y * 0.3, z + roof * 0.8), (x * 0.9, y * 0.62, roof), GLASS, rounding=0.08)
        parts.box((0, y * 0.32, z + roof * 1.7), (x * 0.88, y * 0.58, 0.07), shade(tint, 0.9), rounding=0.05)
    elif style == 2:
        parts.ellipsoid((0, 0.05, z), (x * 0.9, y * 0.62, roof * 2), GLASS)
        parts.ellipsoid((0, 0.05, z + 0.07), (x * 0.8, y * 0.5, roof * 2), tint)
    else:
        parts.box((0, -y * 0.1, z + roof * 0.8), (x * 0.9, y * 0.3, roof), GLASS, rounding=0.07)
        parts.box((0, -y * 0.1, z + roof * 1.7), (x * 0.88, y * 0.28, 0.07), tint)
        parts.box((0, y * 0.6, z + 0.1), (x * 0.7, y * 0.3, 0.2), DARK, subtract=True)
    _wheels(parts, rng, x - 0.06, (-y * 0.6, y * 0.6), radius)
    parts.ellipsoid((x * 0.65, -y, low + body * 1.2), 0.09, (1.0, 0.95, 0.7), mirror=True)
    if rng.random() < 0.6:
        parts.box((0, -y, low + 0.08), (x * 0.95, 0.08, 0.075), shade(tint, 0.5))
    if rng.random() < 0.2:
        parts.cylinder((-0.12, 0.1, z + roof * 2), (0.12, 0.1, z + roof * 2), 0.09, (0.2, 0.3, 0.9))


def truck(parts: Parts, rng: np.random.Generator) -> None:
    """Cabin in front and box body, tank or open bed with cargo."""
    cabin, load = color(rng), color(rng)
    x, y, radius = rng.uniform(0.36, 0.45), rng.uniform(0.9, 1.2), rng.uniform(0.19, 0.24)
    parts.box((0, 0, radius + 0.08), (x * 0.85, y, 0.1), DARK)
    tall, deep = rng.uniform(0.32, 0.42), rng.uniform(0.24, 0.32)
    parts.box((0, -y + deep, radius + 0.1 + tall), (x, deep, tall), cabin, rounding=0.08)
    parts.box((0, -y + deep * 0.6, radius + 0.1 + tall * 1.4), (x * 0.86, deep * 0.72, tall * 0.35), GLASS)
    start = -y + 2 * deep + 0.08
    centre, half, z = (y + start) / 2, (y - start) / 2, radius + 0.15
    style = rng.integers(3)
    if style == 0:
        high = rng.uniform(0.3, 0.55)
        parts.box((0, centre, z + high), (x * 1.03, half, high), load, rounding=0.04)
    elif style == 1:
        size = x * 0.95
        parts.cylinder((0, start, z + size), (0, y, z + size), size, load, rounding=0.12)
        parts.cylinder((0, centre, z + size), (0, centre, z + 2 * size + 0.06), 0.1, METAL)
    else:
        parts.box((0, centre, z + 0.06), (x * 1.02, half, 0.08), load)
        parts.box((x * 0.95, centre, z + 0.2), (0.07, half, 0.2), load, mirror=True)
        parts.box((0, y - 0.06, z + 0.2), (x, 0.07, 0.2), load)
        parts.ellipsoid((0, centre, z + 0.15), (x * 0.85, half * 0.9, rng.uniform(0.2, 0.45)), (0.5, 0.38, 0.2))
    positions = (-y + deep, y - 0.25) if rng.random() < 0.5 else (-y + deep, y - 0.68, y - 0.2)
    _wheels(parts, rng, x - 0.04, positions, radius)


def airplane(parts: Parts, rng: np.random.Generator) -> None:
    """Fuselage, straight or swept wings, tail; propeller, jet engines or two wings on top of each other."""
    tint, second = color(rng, pale=rng.random() < 0.5), color(rng)
    length, radius = rng.uniform(0.8, 1.1), rng.uniform(0.15, 0.22)
    if rng.random() < 0.5:
        parts.capsule((0, -length + radius, 0), (0, length * 0.4, 0), radius, tint)
        parts.cone((0, length * 0.4, 0), (0, length, 0.06), radius, 0.08, tint, rounding=0.03)
    else:
        parts.ellipsoid((0, 0, 0), (radius * 1.1, length, radius * 1.2), tint)
    parts.ellipsoid((0, -length * 0.5, radius * 0.75), (0.12, 0.24, 0.14), GLASS)
    span, chord, thick = rng.uniform(0.7, 1.05), rng.uniform(0.17, 0.26), 0.065
    sweep = rng.uniform(0, 28) if rng.random() < 0.6 else 0.0
    level = rng.uniform(-0.08, 0.06)
    bend = np.deg2rad(sweep)
    parts.box(
        (span / 2 * np.cos(bend), -0.1 + span / 2 * np.sin(bend), level),
        (span / 2, chord, thick),
        second,
        rotation=about("z", sweep),
        mirror=True,
        rounding=0.04,
    )
    parts.box((0.17, length * 0.88, 0.08), (0.24, 0.12, 0.06), second, mirror=True)
    parts.box((0, length * 0.88, 0.24), (0.06, 0.13, rng.uniform(0.18, 0.28)), second, rotation=about("x", -15))
    style = rng.integers(3)
    if style == 0:
        parts.cylinder((0, -length - 0.06, 0), (0, -length + 0.1, 0), 0.1, DARK)
        parts.box((0, -length - 0.02, 0), (0.065, 0.06, rng.uniform(0.3, 0.4)), METAL)
    elif style == 1:
        x = span * 0.45
        y = -0.1 + x * np.sin(bend)
        parts.cylinder((x, y - 0.26, level - 0.12), (x, y + 0.12, level - 0.12), 0.11, METAL, mirror=True)
    else:
        upper = rng.uniform(0.36, 0.45)
        parts.box((0, -0.15, upper), (span * 0.95, chord * 0.9, thick), second, rounding=0.04)
        parts.cylinder((span * 0.5, -0.12, level), (span * 0.5, -0.12, upper), 0.06, METAL, mirror=True)


def rocket(parts: Parts, rng: np.random.Generator) -> None:
    """Body with nose cone, window and three or four fins; optional boosters."""
    tint, second = color(rng, pale=rng.random() < 0.6), color(rng)
    radius, height = rng.uniform(0.24, 0.36), rng.uniform(0.8, 1.2)
    if rng.random() < 0.6:
        parts.cylinder((0, 0, 0), (0, 0, height), radius, tint)
        parts.cone((0, 0, height), (0, 0, height + rng.uniform(0.35, 0.6)), radius, 0.04, second, rounding=0.03)
    else:
        parts.ellipsoid((0, 0, height * 0.5), (radius * 1.2, radius * 1.2, height * 0.75), tint)
        parts.cone((0, 0, height * 0.95), (0, 0, height * 1.35), radius * 0.85, 0.05, second, rounding=0.03)
    parts.cylinder((0, -radius * 0.5, height * 0.7), (0, -radius - 0.12, height * 0.7), 0.13, GLASS)
    parts.cone((0, 0, -0.16), (0, 0, 0.06), radius * 0.75, radius * 0.5, METAL * 0.6)
    out, tall = rng.uniform(0.22, 0.36), rng.uniform(0.2, 0.3)
    style = rng.integers(3)
    if style == 2:
        parts.capsule((radius + 0.12, 0, 0.0), (radius + 0.12, 0, height * 0.5), 0.14, second, mirror=True)
        return
    parts.box(
        (radius + out / 2, 0, 0.05),
        (out / 2 + 0.08, 0.065, tall),
        second,
        rotation=about("y", 20),
        mirror=True,
    )
    parts.box((0, radius + out / 2, 0.05), (0.065, out / 2 + 0.08, tall), second, rotation=about("x", -20))
    if style == 1:
        parts.box((0, -radius - out / 2, 0.05), (0.065, out / 2 + 0.08, tall), second, rotation=about("x", 20))


def house(parts: Parts, rng: np.random.Generator) -> None:
    """Gable, pyramid or flat roof, door and windows in front, chimney, optional annex."""
    wall, roof = (
        color(rng, pale=rng.random() < 0.6),
        color(rng, hue=(-0.05, 0.1)) if rng.random() < 0.6 else color(rng),
    )
    x, y, z = rng.uniform(0.45, 0.75), rng.uniform(0.4, 0.6), rng.uniform(0.28, 0.5)
    parts.box((0, 0, z), (x, y, z), wall, rounding=0.015)
    style = rng.integers(3)
    top = 2 * z
    if style == 0:
        pitch = rng.uniform(28, 42)
        run = (x + 0.08) / np.cos(np.deg2rad(pitch))
        rise = (x + 0.08) * np.tan(np.deg2rad(pitch))
        parts.box(
            (x / 2, 0, top + rise / 2),
            (run / 2, y + 0.08, 0.08),
            roof,
            rotation=about("y", pitch),
            mirror=True,
        )
        parts.box((0, 0, top + rise * 0.27), (x * 0.55, y * 0.96, rise * 0.3), wall)
        parts.box((0, 0, top + rise * 0.5), (x * 0.25, y * 0.96, rise * 0.36), wall)
        top += rise
    elif style == 1:
        rise = rng.uniform(0.3, 0.6)
        for level in range(4):
            part = 1 - level / 4
            parts.box(
                (0, 0, top + rise * (level + 0.5) / 4),
                ((x + 0.08) * part, (y + 0.08) * part, rise / 8 + 0.03),
                roof,
                rounding=0.02,
            )
        top += rise
    else:
        parts.box((0, 0, top + 0.06), (x + 0.07, y + 0.07, 0.08), roof)
        if rng.random() < 0.5:
            parts.box((0, 0.05, top + 0.25), (x * 0.6, y * 0.6, 0.2), wall)
            parts.box((0, 0.05, top + 0.5), (x * 0.68, y * 0.68, 0.07), roof)
    door = rng.choice([-1, 0, 1])
    parts.box((door * x * 0.5, -y, 0.2), (0.12, 0.075, 0.22), color(rng))
    for side in (-1, 0, 1):
        if side != door:
            parts.box((side * x * 0.55, -y, z * 1.15), (0.11, 0.07, 0.11), GLASS)
    if rng.random() < 0.6:
        parts.box((rng.choice([-1, 1]) * x * 0.5, y * 0.4, top), (0.09, 0.09, 0.25), shade(roof, 0.7))
    if rng.random() < 0.3:
        side = rng.choice([-1, 1])
        parts.box((side * (x + 0.2), 0.1, z * 0.6), (0.22, y * 0.7, z * 0.6), shade(wall, 0.9))
        parts.box((side * (x + 0.2), 0.1, z * 1.2), (0.28, y * 0.78, 0.07), roof)


def lighthouse(parts: Parts, rng: np.random.Generator) -> None:
    """Round or square tower, gallery, lantern room and cap; bands of colour; door in front."""
    wall, band = WHITE * rng.uniform(0.85, 1), color(rng)
    base, top, height = rng.uniform(0.32, 0.45), rng.uniform(0.2, 0.28), rng.uniform(1.0, 1.5)
    layers = int(rng.integers(3, 6))
    for index in range(layers):
        low, high = index / layers, (index + 1) / layers
        radii = [base + (top - base) * part for part in (low, high)]
        parts.cone((0, 0, height * low), (0, 0, height * high), radii[0], radii[1], wall if index % 2 else band)
    parts.cylinder((0, 0, height), (0, 0, height + 0.12), top * 1.45, shade(band, 0.6))
    parts.cylinder((0, 0, height), (0, 0, height + 0.38), top * 0.8, (1.0, 0.9, 0.5))
    if rng.random() < 0.5:
        parts.cone((0, 0, height + 0.36), (0, 0, height + 0.65), top * 1.15, 0.05, band, rounding=0.02)
    else:
        parts.ellipsoid((0, 0, height + 0.36), (top, top, 0.2), band)
    parts.box((0, -base * 0.85, 0.18), (0.11, 0.14, 0.18), shade(band, 0.5))
    if rng.random() < 0.5:
        parts.cylinder((0, 0, -0.05), (0, 0, 0.1), base * 1.5, (0.45, 0.43, 0.4))
