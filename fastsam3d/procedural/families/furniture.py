"""Furniture families. Front is -y, up is +z; every function adds random parts of one object to `parts`."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from fastsam3d.procedural.builder import Parts, about
from fastsam3d.procedural.palette import color, shade, wood


def _legs(
    parts: Parts, rng: np.random.Generator, x: float, y: float, bottom: float, top: float, tint: np.ndarray
) -> None:
    thick = rng.uniform(0.07, 0.11)
    if rng.random() < 0.5:
        for depth in (-1, 1):
            parts.box(
                (x - thick, depth * (y - thick), (bottom + top) / 2),
                (thick, thick, (top - bottom) / 2),
                tint,
                rounding=0.02,
                mirror=True,
            )
    else:
        splay = rng.uniform(0, 0.12)
        for depth in (-1, 1):
            parts.cone(
                (x - thick + splay, depth * (y - thick + splay), bottom),
                (x - thick, depth * (y - thick), top),
                0.8 * thick,
                1.1 * thick,
                tint,
                rounding=0.01,
                mirror=True,
            )


def chair(parts: Parts, rng: np.random.Generator) -> None:
    """Seat, four legs or a central foot, back as panel, slats or posts with a rail, optional arm rests."""
    frame = wood(rng) if rng.random() < 0.6 else color(rng)
    seat_tint = color(rng) if rng.random() < 0.6 else shade(frame, 1.1)
    x, y, height = rng.uniform(0.4, 0.55), rng.uniform(0.4, 0.52), rng.uniform(0.7, 1.0)
    thick = rng.uniform(0.07, 0.12)
    if rng.random() < 0.25:
        parts.ellipsoid((0, 0, height), (x, y, thick), seat_tint)
        parts.cylinder((0, 0, height - thick), (0, 0, height), 0.8 * min(x, y), seat_tint)
    else:
        parts.box((0, 0, height), (x, y, thick), seat_tint, rounding=rng.uniform(0.02, 0.07))
    if rng.random() < 0.75:
        _legs(parts, rng, x, y, 0.0, height, frame)
    else:
        parts.cylinder((0, 0, 0), (0, 0, height), rng.uniform(0.09, 0.14), frame)
        parts.cone((0, 0, 0), (0, 0, 0.16), 0.75 * x + 0.1, 0.5 * x, frame, rounding=0.03)
    back, lean = rng.uniform(0.55, 1.0), rng.uniform(0, 12)
    rotation, offset = about("x", -lean), back * np.sin(np.deg2rad(lean))
    style, width = rng.integers(3), 0.075
    if style == 0:
        parts.box(
            (0, y - width + offset / 2, height + back / 2),
            (x * rng.uniform(0.8, 1), width, back / 2 + 0.05),
            seat_tint,
            rotation=rotation,
            rounding=0.05,
        )
    else:
        parts.box(
            (x - width, y - width + offset / 2, height + back / 2),
            (width, width, back / 2 + 0.04),
            frame,
            rotation=rotation,
            mirror=True,
        )
        parts.box(
            (0, y - width + offset * 0.9, height + back * 0.88),
            (x, width, rng.uniform(0.09, 0.2)),
            seat_tint,
            rotation=rotation,
        )
        if style == 1:
            parts.box(
                (0, y - width + offset * 0.45, height + back * 0.42),
                (x, width, 0.09),
                seat_tint,
                rotation=rotation,
            )
        else:
            parts.box(
                (0, y - width + offset * 0.45, height + back * 0.45),
                (0.1, width, back * 0.45),
                frame,
                rotation=rotation,
            )
    if rng.random() < 0.3:
        arm = rng.uniform(0.28, 0.4)
        parts.box((x - 0.02, 0, height + arm), (0.085, y, 0.065), frame, mirror=True)
        parts.box((x - 0.02, -y + 0.12, height + arm / 2), (0.07, 0.07, arm / 2), frame, mirror=True)


def table(parts: Parts, rng: np.random.Generator) -> None:
    """Round or square top on legs, a column or two side panels, optional lower shelf."""
    frame, top = wood(rng), wood(rng) if rng.random() < 0.5 else color(rng)
    x, y, height, thick = (
        rng.uniform(0.6, 1.0),
        rng.uniform(0.5, 0.7),
        rng.uniform(0.5, 0.9),
        rng.uniform(0.06, 0.1),
    )
    style = rng.integers(3)
    if style == 0:
        parts.cylinder((0, 0, height - thick), (0, 0, height + thick), min(x, y), top)
        parts.cone((0, 0, 0), (0, 0, height), rng.uniform(0.12, 0.25), rng.uniform(0.1, 0.16), frame)
        parts.cylinder((0, 0, 0), (0, 0, 0.14), rng.uniform(0.3, 0.5), frame)
        return
    parts.box((0, 0, height), (x, y, thick), top, rounding=rng.uniform(0.02, 0.06))
    if style == 1:
        _legs(parts, rng, x - 0.03, y - 0.03, 0.0, height, frame)
        if rng.random() < 0.4:
            parts.box((0, 0, rng.uniform(0.18, 0.3)), (x - 0.12, y - 0.12, 0.06), shade(top, 0.85))
    else:
        parts.box((x * 0.8, 0, height / 2), (0.075, y * 0.85, height / 2), frame, mirror=True)
        parts.box((0, 0, height * 0.45), (x * 0.8, 0.08, 0.09), frame)


def shelf(parts: Parts, rng: np.random.Generator) -> None:
    """Side panels with boards; optional back panel and coloured contents."""
    frame = wood(rng) if rng.random() < 0.7 else color(rng)
    x, y, z, t = rng.uniform(0.45, 0.8), rng.uniform(0.22, 0.35), rng.uniform(0.8, 1.2), 0.065
    boards = int(rng.integers(2, 5))
    parts.box((x - t, 0, 0), (t, y, z), frame, mirror=True)
    closed = rng.random() < 0.6
    if closed:
        parts.box((0, y - t, 0), (x, t, z), shade(frame, 0.8))
    levels = np.linspace(-z + t, z - t, boards)
    for level in levels:
        parts.box((0, 0, level), (x, y, t), frame)
    for level, above in pairwise(levels):
        if rng.random() < 0.6:
            room = (above - level) / 2 - t
            size = np.array([rng.uniform(0.12, 0.25), y * 0.7, room * rng.uniform(0.5, 0.9)])
            side = rng.uniform(-1, 1) * max(x - 2 * t - size[0], 0)
            parts.box((side, 0, level + t + size[2]), size, color(rng))


def bed(parts: Parts, rng: np.random.Generator) -> None:
    """Mattress, headboard, pillows and cover; the foot end is the front."""
    frame, cover = wood(rng), color(rng)
    x, y = rng.uniform(0.5, 0.85), rng.uniform(0.85, 1.1)
    parts.box((0, 0, 0.16), (x, y, 0.1), frame)
    parts.box((x - 0.1, -y + 0.1, 0.0), (0.09, 0.09, 0.16), frame, mirror=True)
    parts.box((x - 0.1, y - 0.1, 0.0), (0.09, 0.09, 0.16), frame, mirror=True)
    parts.box((0, 0, 0.34), (x * 0.95, y * 0.95, 0.13), (0.92, 0.9, 0.86), rounding=0.06)
    parts.box((0, -y * 0.28, 0.4), (x * 0.99, y * 0.7, 0.12), cover, rounding=0.07)
    head = rng.uniform(0.4, 0.7)
    parts.box((0, y, head / 2 + 0.1), (x, 0.075, head / 2 + 0.1), frame, rounding=0.04)
    if rng.random() < 0.5:
        parts.box((0, -y, 0.3), (x, 0.07, rng.uniform(0.22, 0.34)), frame, rounding=0.04)
    tint = color(rng, pale=True)
    if x > 0.65:
        parts.ellipsoid((x * 0.47, y * 0.68, 0.52), (x * 0.4, 0.2, 0.11), tint, mirror=True)
    else:
        parts.ellipsoid((0, y * 0.68, 0.52), (x * 0.7, 0.2, 0.11), tint)


def sofa(parts: Parts, rng: np.random.Generator) -> None:
    """Seat base, cushions, back and two arms; armchairs to three-seaters."""
    tint, cushion = color(rng), color(rng)
    x, y, arm = rng.uniform(0.5, 1.1), rng.uniform(0.4, 0.5), rng.uniform(0.1, 0.16)
    parts.box((0, 0, 0.2), (x, y, 0.16), tint, rounding=0.05)
    back = rng.uniform(0.35, 0.6)
    parts.box((0, y - 0.1, 0.3 + back / 2), (x, 0.13, back / 2 + 0.15), tint, rounding=0.09, rotation=about("x", -6))
    if rng.random() < 0.5:
        parts.box((x - arm, 0, 0.38), (arm, y, 0.26), shade(tint, 0.9), rounding=0.08, mirror=True)
    else:
        parts.cylinder((x - arm, -y, 0.5), (x - arm, y, 0.5), arm, tint, rounding=0.03, mirror=True)
        parts.box((x - arm, 0, 0.3), (arm * 0.85, y, 0.2), shade(tint, 0.9), mirror=True)
    seats = 1 if x < 0.65 else (2 if x < 0.95 else 3)
    room = (x - 2 * arm) / seats
    for index in range(seats):
        parts.box(((2 * index - seats + 1) * room, -0.1, 0.42), (room * 0.96, y * 0.75, 0.1), cushion, rounding=0.05)
    parts.box((x - 0.12, -y + 0.12, 0.0), (0.07, 0.07, 0.1), (0.2, 0.15, 0.1), mirror=True)
    parts.box((x - 0.12, y - 0.12, 0.0), (0.07, 0.07, 0.1), (0.2, 0.15, 0.1), mirror=True)


def lamp(parts: Parts, rng: np.random.Generator) -> None:
    """Table or floor lamp: foot, stem, shade as cone, drum or globe."""
    metal, shade_tint = color(rng), color(rng, pale=True)
    height, wide = rng.uniform(0.7, 1.6), rng.uniform(0.35, 0.6)
    foot = rng.uniform(0.25, 0.42)
    if rng.random() < 0.6:
        parts.cylinder((0, 0, 0), (0, 0, 0.14), foot, metal, rounding=0.04)
        parts.cylinder((0, 0, 0), (0, 0, height), rng.uniform(0.07, 0.1), metal)
    else:
        parts.ellipsoid((0, 0, height * 0.4), (foot * 0.9, foot * 0.9, height * 0.4), metal)
        parts.cylinder((0, 0, 0), (0, 0, 0.12), foot * 0.8, metal)
        parts.cylinder((0, 0, 0), (0, 0, height), 0.08, shade(metal, 0.7))
    style, tall = rng.integers(3), rng.uniform(0.35, 0.6)
    if style == 0:
        parts.cone(
            (0, 0, height),
            (0, 0, height + tall),
            wide,
            wide * rng.uniform(0.35, 0.6),
            shade_tint,
            rounding=0.02,
        )
    elif style == 1:
        parts.cylinder((0, 0, height), (0, 0, height + tall), wide * 0.85, shade_tint)
    else:
        parts.ellipsoid((0, 0, height + tall * 0.6), wide * 0.8, shade_tint)
