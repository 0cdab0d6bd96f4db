"""Flat animals and people, as lists of shapes."""

from __future__ import annotations

import numpy as np

from fastsam3d.training.marker.shapes import Shape, Shapes, bent_path, blob, box, ellipse, limb


def creature(rng: np.random.Generator) -> Shapes:
    """Draws a four-legged animal with a tail, from the side."""
    a, b = rng.uniform(0.45, 0.75), rng.uniform(0.22, 0.45)
    legs, mane = rng.uniform(0.2, 0.8), rng.random() < 0.25
    skin, shapes = int(rng.random() < 0.3), []
    for x in (-0.85, -0.65, 0.6, 0.8):
        start = np.array([x * a, b * 0.3])
        width = rng.uniform(0.05, 0.13) * np.linspace(1.3, 0.8, 9)
        path = bent_path(rng, start, np.pi / 2 + rng.normal(0, 0.25), legs + b * 0.5, rng.normal(0, 0.4))
        shapes.append(Shape(limb(path, width), int(rng.random() < 0.2)))
    tail = bent_path(
        rng, np.array([-a * 0.95, -b * 0.2]), np.pi + rng.uniform(-1.2, 1.0), rng.uniform(0.1, 0.9), rng.normal()
    )
    shapes.append(Shape(limb(tail, np.linspace(1, rng.uniform(0.3, 2), 9) * rng.uniform(0.03, 0.09)), skin))
    shapes.append(Shape(blob(rng, 0, 0, a, b, 0.12), 0))
    head = np.array([a * rng.uniform(0.9, 1.25), -b * rng.uniform(0.2, 1.8)])
    size = rng.uniform(0.16, 0.34)
    shapes.append(Shape(limb(np.linspace([a * 0.7, -b * 0.1], head, 9), np.linspace(b * 0.6, size * 0.7, 9)), 0))
    if mane:
        shapes.append(Shape(blob(rng, head[0], head[1], size * 1.7, size * 1.7, 0.3), 2))
    return shapes + face(rng, head[0], head[1], size, rng.uniform(0.5, 1.0))


def face(rng: np.random.Generator, x: float, y: float, size: float, ears: float) -> Shapes:
    """Draws ears, head, muzzle, eyes and nose."""
    shapes = []
    up, out = rng.uniform(0.7, 1.2), rng.uniform(0.4, 0.9)
    pointed = rng.random() < 0.5
    for side in (-1, 1):
        at = np.array([x + side * out * size, y - up * size])
        ear = size * 0.45 * ears
        outline = ellipse(at[0], at[1], ear * 0.7, ear * rng.uniform(0.8, 2.0), side * rng.uniform(0, 0.7))
        if pointed:
            outline = at + np.array([[-ear, ear], [side * ear * 0.4, -ear * 1.3], [ear, ear]])
        shapes.append(Shape(outline, int(rng.random() < 0.3)))
    shapes.append(Shape(blob(rng, x, y, size * rng.uniform(0.85, 1.25), size, 0.08), 0))
    if rng.random() < 0.7:
        shapes.append(Shape(ellipse(x, y + 0.45 * size, size * 0.5, size * rng.uniform(0.3, 0.5)), 1))
    for side in (-1, 1):
        shapes.append(Shape(ellipse(x + side * 0.4 * size, y - 0.1 * size, size * 0.13, size * 0.13), 3))
    shapes.append(Shape(ellipse(x, y + 0.3 * size, size * 0.13, size * 0.1), 3))
    return shapes


def bust(rng: np.random.Generator) -> Shapes:
    """Draws a head with shoulders, of a person or an animal."""
    size = rng.uniform(0.4, 0.6)
    width = rng.uniform(0.75, 1.5) * size * 1.6
    top = size * rng.uniform(0.9, 1.2)
    shoulders = np.array([[-0.35, 0], [0.35, 0], [0.85, 0.35], [1, 1], [1.1, 2.2], [-1.1, 2.2], [-1, 1], [-0.85, 0.35]])
    shapes = [Shape(shoulders * [width, size * 1.1] + [0, top], 1)]
    if rng.random() < 0.5:
        lapel = np.array([[-0.25, 0], [0.25, 0], [0, rng.uniform(0.8, 2.0)]])
        shapes.append(Shape(lapel * [width, size] + [0, top], 3))
    shapes.append(Shape(box(0, top * 0.85, size * 0.35, size * 0.4), 0))
    if rng.random() < 0.4:
        return shapes + face(rng, 0, 0, size, rng.uniform(0.5, 1.6))
    long = rng.uniform(0, 1.2)
    shapes.append(Shape(blob(rng, 0, -0.15 * size + 0.3 * long * size, size * 1.0, size * (1.05 + 0.4 * long), 0.1), 2))
    shapes.append(Shape(ellipse(0, 0.1 * size, size * 0.75, size * 0.95), 0))
    if rng.random() < 0.6:
        shapes.append(
            Shape(np.concatenate([ellipse(0, -0.2 * size, size * 0.85, size * 0.8)[20:], [[0, -0.3 * size]]]), 2)
        )
    for side in (-1, 1):
        shapes.append(Shape(ellipse(side * 0.3 * size, 0, size * 0.12, size * 0.06), 3))
    shapes.append(Shape(ellipse(0, 0.5 * size, size * 0.25, size * 0.07), 3))
    return shapes


def person(rng: np.random.Generator) -> Shapes:
    """Draws a standing person with clothes."""
    torso, hip = rng.uniform(0.35, 0.5), rng.uniform(0.16, 0.28)
    shapes: Shapes = []
    coat = rng.random() < 0.4
    for side in (-1, 1):
        leg = bent_path(
            rng,
            np.array([side * hip * 0.55, torso * 0.9]),
            np.pi / 2 + side * rng.uniform(-0.2, 0.4),
            0.9,
            rng.normal(0, 0.4),
        )
        shapes.append(Shape(limb(leg, np.linspace(0.14, 0.08, 9) * rng.uniform(0.8, 1.2)), 2))
        shapes.append(Shape(ellipse(leg[-1][0] + 0.05, leg[-1][1], 0.13, 0.06), 3))
        arm = bent_path(
            rng,
            np.array([side * hip * 1.15, -torso * 0.75]),
            np.pi / 2 - side * rng.uniform(-0.5, 1.2),
            0.75,
            rng.normal(0, 1.2),
        )
        shapes.append(Shape(limb(arm, np.linspace(0.11, 0.07, 9)), 1))
        shapes.append(Shape(ellipse(arm[-1][0], arm[-1][1], 0.08, 0.08), 0))
    shapes.append(
        Shape(box(0, 0.25 if coat else 0, hip * 1.3, torso * (1.4 if coat else 1.0), 0, rng.uniform(0.8, 1.3)), 1)
    )
    shapes.append(Shape(ellipse(0, -torso - 0.22, 0.19, 0.23), 2))
    shapes.append(Shape(ellipse(rng.uniform(-0.05, 0.05), -torso - 0.16, 0.14, 0.18), 0))
    if rng.random() < 0.4:
        shapes.append(Shape(box(0.1, 0.1, rng.uniform(0.1, 0.25), rng.uniform(0.1, 0.3)), 3))
    return shapes
