"""More vehicles, for training: two-wheelers, buses and boats. Front is -y, up is +z."""

from __future__ import annotations

import numpy as np

from fastsam3d.procedural.builder import Parts, about
from fastsam3d.procedural.palette import DARK, GLASS, METAL, WHITE, color, shade


def motorcycle(parts: Parts, rng: np.random.Generator) -> None:
    """Motorcycle, scooter or bicycle: two wheels in line, frame, seat and handlebar."""
    tint = color(rng)
    radius, base = rng.uniform(0.28, 0.42), rng.uniform(0.6, 0.8)
    pedalled = rng.random() < 0.35
    tyre = 0.06 if pedalled else rng.uniform(0.08, 0.13)
    for y in (-base, base):
        parts.torus((0, y, radius), radius - tyre, tyre, DARK, rotation=about("y", 90))
        parts.cylinder((-0.06, y, radius), (0.06, y, radius), radius * (0.25 if pedalled else 0.5), METAL)
    seat, bar = (0.0, base * 0.45, radius * 2 + 0.2), (0.0, -base * 0.65, radius * 2 + rng.uniform(0.25, 0.45))
    parts.capsule((0, -base, radius), bar, 0.07, METAL)
    if pedalled:
        pedal = (0.0, 0.05, radius * 0.9)
        rear = (0, base, radius)
        for start, end in ((pedal, seat), (pedal, bar), (seat, bar), (pedal, rear), (seat, rear)):
            parts.capsule(start, end, 0.065, tint)
        parts.cylinder((-0.1, 0.05, radius * 0.9), (0.1, 0.05, radius * 0.9), 0.14, METAL)
    else:
        parts.box((0, 0, radius * 1.1), (0.17, base * 0.4, radius * 0.6), METAL * 0.6, rounding=0.08)
        parts.ellipsoid((0, -base * 0.15, radius * 2 + 0.1), (0.19, base * 0.4, 0.19), tint)
        parts.box((0, base * 0.95, radius * 2 + 0.05), (0.12, 0.3, 0.07), tint, rounding=0.05)
        parts.capsule((0.12, 0.1, radius * 0.6), (0.16, base * 1.1, radius * 0.7), 0.07, METAL)
        parts.ellipsoid((0, -base * 0.85, radius * 2 + 0.2), 0.14, WHITE)
    parts.box(seat, (0.12, 0.32 if not pedalled else 0.16, 0.08), DARK, rounding=0.06)
    parts.capsule((0, bar[1], bar[2]), (rng.uniform(0.25, 0.4), bar[1] + 0.1, bar[2] + 0.05), 0.06, DARK, mirror=True)


def bus(parts: Parts, rng: np.random.Generator) -> None:
    """Bus, van, tram or railway carriage."""
    tint, band = color(rng), color(rng)
    x, y, z = rng.uniform(0.3, 0.42), rng.uniform(0.7, 1.3), rng.uniform(0.3, 0.55)
    radius = rng.uniform(0.14, 0.2)
    low = radius * 0.8
    parts.box((0, 0, low + z), (x, y, z), tint, rounding=rng.uniform(0.04, 0.12))
    parts.box((0, 0, low + z * 1.35), (x + 0.015, y * 0.9, z * 0.28), GLASS, rounding=0.02)
    parts.box((0, -y * 0.98, low + z * 1.25), (x * 0.85, 0.06, z * 0.4), GLASS, rounding=0.02)
    if rng.random() < 0.6:
        parts.box((0, 0, low + z * 0.55), (x + 0.012, y * 0.98, z * 0.16), band, rounding=0.02)
    for at in (-y * 0.65, y * 0.6):
        parts.cylinder((x - 0.1, at, radius), (x + 0.04, at, radius), radius, DARK, mirror=True)
    parts.ellipsoid((x * 0.65, -y, low + 0.12), 0.07, (1.0, 0.95, 0.7), mirror=True)


def boat(parts: Parts, rng: np.random.Generator) -> None:
    """Sailing boat, ship or rowing boat, seen from its broad side."""
    tint, deck = color(rng), shade(WHITE, rng.uniform(0.5, 1.0))
    long, wide = rng.uniform(0.7, 1.0), rng.uniform(0.2, 0.32)
    parts.box((0, 0, 0.2), (long * 0.6, wide, 0.18), tint, rounding=0.1)
    parts.cone((long * 0.4, 0, 0.2), (long, 0, 0.3), wide * 0.85, 0.06, tint, smooth=0.03)
    parts.cone((-long * 0.4, 0, 0.2), (-long, 0, 0.3), wide * 0.85, rng.uniform(0.06, 0.2), tint, smooth=0.03)
    style = rng.integers(3)
    if style == 0:
        tall = rng.uniform(0.9, 1.6)
        parts.cylinder((0, 0, 0.1), (0, 0, tall + 0.2), 0.055, METAL)
        for level in range(4):
            half = long * 0.75 * (1 - level / 4.5) / 2
            z = 0.5 + tall * level / 5
            parts.box((half + 0.03, 0, z), (half, 0.06, tall / 9), deck, rounding=0.02)
    elif style == 1:
        parts.box((long * 0.15, 0, 0.5), (long * 0.4, wide * 0.7, 0.18), deck)
        parts.box((long * 0.1, 0, 0.75), (long * 0.22, wide * 0.5, 0.12), deck)
        parts.cylinder((long * 0.2, 0, 0.8), (long * 0.2, 0, 1.15), 0.1, color(rng))
    else:
        parts.ellipsoid((0, 0, 0.45), (long * 0.75, wide * 0.7, 0.3), DARK, subtract=True)
        for x in (-0.3, 0.2):
            parts.box((x * long, 0, 0.28), (0.08, wide * 0.8, 0.06), shade(tint, 0.7))
