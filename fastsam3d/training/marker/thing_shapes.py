"""Flat things, plants, vehicles and buildings, as lists of shapes."""

from __future__ import annotations

import numpy as np

from fastsam3d.training.marker.shapes import Shape, Shapes, bent_path, blob, box, ellipse, limb


def vessel(rng: np.random.Generator) -> Shapes:
    """Draws a body of revolution, with handle and saucer at times, or as the pot of a plant."""
    heights = np.linspace(-1, 1, 7) * rng.uniform(0.5, 1.0)
    radii = np.clip(0.5 + np.cumsum(rng.normal(0, 0.16, 7)), 0.12, 0.95)
    smooth = np.interp(np.linspace(0, 6, 31), np.arange(7), radii)
    ys = np.interp(np.linspace(0, 6, 31), np.arange(7), heights)
    flat = rng.uniform(0.05, 0.3)
    bottom = ellipse(0, ys[-1], smooth[-1], smooth[-1] * flat)[:20]
    top = ellipse(0, ys[0], smooth[0], smooth[0] * flat)[20:]
    outline = np.concatenate([np.stack([smooth, ys], 1), bottom, np.stack([-smooth, ys], 1)[::-1], top])
    shapes: Shapes = []
    if rng.random() < 0.4:
        wide = max(smooth[-1] * rng.uniform(1.2, 2.2), 0.3)
        shapes.append(Shape(ellipse(0, ys[-1] + 0.03, wide, wide * max(flat, 0.12)), int(rng.integers(2))))
    if rng.random() < 0.5:
        at, size = float(smooth[12]), rng.uniform(0.15, 0.4)
        shapes.append(Shape(ellipse(at, ys[12], size, size * 1.2), 0))
        shapes.append(Shape(ellipse(at, ys[12], size * 0.6, size * 0.8), 0, cuts=True))
    shapes.append(Shape(outline, 0))
    shapes.append(Shape(ellipse(0, ys[0], smooth[0] * 0.9, smooth[0] * flat * 0.85), int(rng.integers(1, 3))))
    if rng.random() < 0.4:
        rows = slice(*sorted(rng.choice(31, 2, replace=False)))
        band = np.concatenate([np.stack([smooth, ys], 1)[rows], np.stack([-smooth, ys], 1)[rows][::-1]])
        shapes.append(Shape(band, 2))
    return shapes if rng.random() < 0.7 else plant(rng, shapes, ys[0])


def plant(rng: np.random.Generator, pot: Shapes, top: float) -> Shapes:
    """Draws leaves that grow out of a pot, behind it and before it."""
    leaves = []
    for _ in range(int(rng.integers(5, 22))):
        path = bent_path(
            rng,
            np.array([rng.normal(0, 0.1), top]),
            -np.pi / 2 + rng.normal(0, 0.6),
            rng.uniform(0.4, 1.4),
            rng.normal(0, 0.7),
        )
        leaves.append(
            Shape(limb(path, np.sin(np.linspace(0.15, 3.0, 9)) * rng.uniform(0.03, 0.2)), int(rng.choice([1, 3])))
        )
    return leaves if rng.random() < 0.2 else [*leaves[: len(leaves) // 2], *pot, *leaves[len(leaves) // 2 :]]


def flower(rng: np.random.Generator) -> Shapes:
    """Draws petals about a middle, with a stem at times."""
    count, inner = int(rng.integers(5, 14)), rng.uniform(0.15, 0.4)
    shapes: Shapes = []
    if rng.random() < 0.5:
        path = bent_path(rng, np.zeros(2), np.pi / 2, rng.uniform(0.8, 1.8), rng.normal(0, 0.4))
        shapes.append(Shape(limb(path, np.full(9, 0.05)), 2))
    for ring in range(int(rng.integers(1, 3))):
        for index in range(count):
            angle = 2 * np.pi * (index + 0.5 * ring) / count
            away = 0.55 - 0.2 * ring
            petal = ellipse(
                away * np.cos(angle), away * np.sin(angle), 0.42 - 0.1 * ring, rng.uniform(0.1, 0.25), angle
            )
            shapes.append(Shape(petal, ring % 2))
    return [*shapes, Shape(ellipse(0, 0, inner, inner), 3)]


def cuboid(rng: np.random.Generator) -> Shapes:
    """Draws a box seen from the front, the side and above."""
    w, h, d = rng.uniform(0.3, 1.0, 3)
    dx, dy = d * rng.uniform(-0.8, 0.8), -d * rng.uniform(0.1, 0.6)
    front = np.array([[-w, -h], [w, -h], [w, h], [-w, h]])
    back = front + np.array([dx, dy])
    side = [1, 2] if dx > 0 else [3, 0]
    shapes = [
        Shape(np.stack([front[side[0]], front[side[1]], back[side[1]], back[side[0]]]), 1),
        Shape(np.stack([front[0], front[1], back[1], back[0]]), 2),
        Shape(front, 0),
    ]
    for _ in range(int(rng.integers(0, 5))):
        x, y = rng.uniform(-0.7, 0.7, 2) * [w, h]
        shapes.append(Shape(box(x, y, w * rng.uniform(0.05, 0.25), h * rng.uniform(0.05, 0.25)), 3))
    return shapes


def vehicle(rng: np.random.Generator) -> Shapes:
    """Draws a body on wheels, with a cabin, windows and a stripe at times."""
    high, cabin = rng.uniform(0.2, 0.55), rng.uniform(0.1, 0.45)
    wheel = rng.uniform(0.14, 0.28)
    shapes: Shapes = []
    if rng.random() < 0.7:
        at, wide = rng.uniform(-0.3, 0.3), rng.uniform(0.3, 0.6)
        shapes.append(Shape(box(at, -high - cabin, wide, cabin, 0, rng.uniform(0.6, 1.0)), 0))
        for index in range(int(rng.integers(1, 4))):
            x = at + wide * (index - 1) * 0.6
            shapes.append(Shape(box(x, -high - cabin, wide * 0.25, cabin * 0.6), 2))
    shapes.append(
        Shape(
            blob(rng, 0, 0, 1.0, high, 0.03) if rng.random() < 0.3 else box(0, 0, 1.0, high, 0, rng.uniform(0.85, 1)), 0
        )
    )
    if rng.random() < 0.6:
        shapes.append(Shape(box(0, rng.uniform(-0.5, 0.5) * high, 0.95, high * rng.uniform(0.1, 0.4)), 1))
    for x in np.linspace(-0.7, 0.7, int(rng.integers(2, 5))):
        shapes.append(Shape(ellipse(x, high, wheel, wheel), 3))
        shapes.append(Shape(ellipse(x, high, wheel * 0.5, wheel * 0.5), 1))
    return shapes


def frame(rng: np.random.Generator) -> Shapes:
    """Draws wheels and bars: a bicycle, a machine, a rack."""
    shapes: Shapes = []
    wheels = [np.array([x, 0.35]) for x in (-0.6, 0.6)]
    size = rng.uniform(0.25, 0.42)
    for at in wheels:
        shapes.append(Shape(ellipse(at[0], at[1], size, size), 3))
        shapes.append(Shape(ellipse(at[0], at[1], size * 0.75, size * 0.75), 3, cuts=rng.random() < 0.6))
    joints = [*wheels, *(rng.uniform([-0.6, -0.6], [0.6, 0.2]) for _ in range(int(rng.integers(2, 5))))]
    for index in range(len(joints)):
        for other in joints[index + 1 :]:
            if rng.random() < 0.6:
                thick = rng.uniform(0.03, 0.1)
                shapes.append(
                    Shape(limb(np.linspace(joints[index], other, 9), np.full(9, thick)), int(rng.integers(2)))
                )
    for at in joints[2:]:
        shapes.append(
            Shape(blob(rng, at[0], at[1], rng.uniform(0.1, 0.4), rng.uniform(0.08, 0.2), 0.2), int(rng.integers(3)))
        )
    return shapes


def building(rng: np.random.Generator) -> Shapes:
    """Draws storeys with windows and roofs."""
    shapes: Shapes = []
    wide, bottom = rng.uniform(0.2, 0.8), 1.0
    for level in range(int(rng.integers(1, 6))):
        tall = rng.uniform(0.12, 0.9)
        shapes.append(Shape(box(0, bottom - tall, wide, tall, 0, rng.uniform(0.75, 1.0)), level % 2))
        columns, rows = (int(v) for v in rng.integers(1, 6, 2))
        if rng.random() < 0.7:
            for i in range(columns):
                for j in range(rows):
                    x = wide * 0.8 * ((i + 0.5) / columns * 2 - 1)
                    y = bottom - tall + tall * 0.8 * ((j + 0.5) / rows * 2 - 1)
                    shapes.append(Shape(box(x, y, wide * 0.3 / columns, tall * 0.45 / rows), 3))
        bottom -= 2 * tall
        if rng.random() < 0.6:
            roof = rng.uniform(1.0, 1.5)
            corners = np.array(
                [
                    [-wide * roof, bottom],
                    [wide * roof, bottom],
                    [wide * 0.3, bottom - 0.25],
                    [-wide * 0.3, bottom - 0.25],
                ]
            )
            shapes.append(Shape(corners, 2))
            bottom -= 0.1
        wide *= rng.uniform(0.6, 0.95)
    if rng.random() < 0.4:
        shapes.append(Shape(np.array([[-0.04, bottom + 0.1], [0, bottom - 0.6], [0.04, bottom + 0.1]]), 2))
    return shapes


def simple(rng: np.random.Generator) -> Shapes:
    """Draws an ellipse, a blob, a trapezoid or a star, with patches at times."""
    kind = int(rng.integers(4))
    a, b = 1.0, rng.uniform(0.35, 1.0)
    if kind == 0:
        outline = ellipse(0, 0, a, b)
    elif kind == 1:
        outline = blob(rng, 0, 0, a, b, rng.uniform(0.1, 0.5))
    elif kind == 2:
        outline = box(0, 0, a, b, 0, rng.uniform(0.4, 1))
    else:
        angles = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 9))))
        radii = rng.uniform(0.4, 1.0, len(angles))[:, None]
        outline = radii * np.stack([np.cos(angles), np.sin(angles)], 1)
    shapes = [Shape(outline, 0)]
    for _ in range(int(rng.choice([0, 1, 3]))):
        x, y = rng.uniform(-0.4, 0.4, 2) * [a, b]
        shapes.append(
            Shape(blob(rng, x, y, rng.uniform(0.05, 0.35), rng.uniform(0.05, 0.35) * b, 0.2), int(rng.integers(1, 4)))
        )
    return shapes


def union(rng: np.random.Generator) -> Shapes:
    """Draws random shapes, each fixed to one before it."""
    shapes, at = [], np.zeros(2)
    for index in range(int(rng.integers(2, 8))):
        size = rng.uniform(0.15, 0.6, 2)
        outline = simple(rng)[0].polygon * size + at
        shapes.append(Shape(outline, int(rng.integers(4)) if index else 0))
        anchor = shapes[int(rng.integers(len(shapes)))].polygon
        at = anchor[int(rng.integers(len(anchor)))] * rng.uniform(0.5, 1.0)
    return shapes
