"""Vessels, tools, toy figures and plants. Front is -y, up is +z."""

from __future__ import annotations

import numpy as np

from fastsam3d.procedural.builder import Parts, about
from fastsam3d.procedural.palette import DARK, METAL, WHITE, color, leaf, shade, wood


def mug(parts: Parts, rng: np.random.Generator) -> None:
    """Hollow cup, straight, conical or bellied, with a ring or square handle towards the front."""
    tint, inner = color(rng), color(rng)
    radius, height = rng.uniform(0.36, 0.5), rng.uniform(0.7, 1.15)
    taper, wall = rng.uniform(0.8, 1.1), rng.uniform(0.1, 0.13)
    parts.cone((0, 0, 0), (0, 0, height), radius * taper, radius, tint, rounding=0.03)
    if rng.random() < 0.3:
        parts.ellipsoid((0, 0, height * 0.4), (radius * 1.12, radius * 1.12, height * 0.38), tint, smooth=0.1)
    if rng.random() < 0.4:
        parts.cylinder((0, 0, height * 0.3), (0, 0, height * 0.6), radius + 0.02, inner)
    parts.cone((0, 0, 0.14), (0, 0, height + 0.2), (radius * taper) - wall, radius - wall, inner, subtract=True)
    reach = rng.uniform(0.2, 0.28)
    if rng.random() < 0.6:
        parts.torus((0, -radius * 0.97, height * 0.5), reach, 0.075, tint, rotation=about("y", 90))
    else:
        y = -radius - reach
        parts.box((0, y, height * 0.5), (0.07, 0.07, 0.26), tint)
        for z in (-0.2, 0.2):
            parts.box((0, y + reach / 2, height * 0.5 + z), (0.07, reach / 2 + 0.06, 0.07), tint)


def bottle(parts: Parts, rng: np.random.Generator) -> None:
    """Round or square body, shoulder, neck, cap and label."""
    tint, cap = color(rng), color(rng)
    radius, height, neck = rng.uniform(0.26, 0.4), rng.uniform(0.7, 1.0), rng.uniform(0.1, 0.15)
    shoulder = rng.uniform(0.15, 0.4)
    style = rng.integers(3)
    if style == 2:
        parts.box((0, 0, height / 2), (radius, radius * 0.7, height / 2), tint, rounding=0.08)
        parts.cone((0, 0, height - 0.05), (0, 0, height + shoulder), radius * 0.7, neck, tint, smooth=0.08)
        parts.box((0, -0.03, height * 0.5), (radius * 0.8, radius * 0.7, height * 0.25), color(rng, pale=True))
    else:
        parts.cylinder((0, 0, 0), (0, 0, height), radius, tint, rounding=0.06)
        if style == 0:
            parts.cone((0, 0, height - 0.02), (0, 0, height + shoulder), radius * 0.97, neck, tint, smooth=0.05)
        else:
            parts.ellipsoid((0, 0, height - 0.02), (radius, radius, shoulder), tint)
        if rng.random() < 0.7:
            parts.cylinder((0, 0, height * 0.25), (0, 0, height * 0.7), radius + 0.015, color(rng, pale=True))
    top = height + shoulder + rng.uniform(0.05, 0.3)
    parts.cylinder((0, 0, height), (0, 0, top), neck, tint)
    parts.cylinder((0, 0, top - 0.06), (0, 0, top + 0.1), neck * 1.25, cap)


def vase(parts: Parts, rng: np.random.Generator) -> None:
    """Bellied, conical or pear-shaped vessel with an opening, optionally with flowers or two handles."""
    tint = color(rng)
    belly, height = rng.uniform(0.32, 0.5), rng.uniform(0.8, 1.2)
    style, mouth = rng.integers(3), rng.uniform(0.22, 0.3)
    if style == 0:
        parts.ellipsoid((0, 0, height * 0.45), (belly, belly, height * 0.42), tint)
        parts.cone((0, 0, height * 0.7), (0, 0, height), mouth * 0.8, mouth, tint, smooth=0.12, rounding=0.02)
    elif style == 1:
        parts.cone((0, 0, 0), (0, 0, height), belly * 0.6, max(belly, mouth), tint, rounding=0.04)
        mouth = max(belly, mouth)
    else:
        parts.ellipsoid((0, 0, height * 0.3), (belly, belly, height * 0.3), tint)
        parts.cone((0, 0, height * 0.3), (0, 0, height), belly * 0.75, mouth, tint, smooth=0.1)
    parts.cylinder((0, 0, 0), (0, 0, 0.12), belly * 0.6, shade(tint, 0.8), smooth=0.04)
    if rng.random() < 0.5:
        parts.torus((0, 0, height), mouth * 0.85, 0.07, shade(tint, 0.8))
    flowers = rng.random() < 0.4
    parts.cylinder((0, 0, height * 0.6), (0, 0, height + 0.2), mouth - 0.11, DARK, subtract=True)
    if flowers:
        parts.cylinder((0, 0, height * 0.5), (0, 0, height + 0.45), 0.07, leaf(rng))
        parts.ellipsoid((0, 0, height + 0.5), (0.2, 0.2, 0.16), color(rng))
        lift = rng.uniform(0.15, 0.4)
        parts.capsule((0, 0, height * 0.8), (0.25, 0, height + lift), 0.06, leaf(rng), mirror=True)
        parts.ellipsoid((0.27, 0, height + lift), 0.15, color(rng), mirror=True)
    elif rng.random() < 0.4:
        parts.torus(
            (belly * 0.85, 0, height * 0.6),
            0.2,
            0.065,
            shade(tint, 0.8),
            rotation=about("x", 90),
            mirror=True,
        )


def hammer(parts: Parts, rng: np.random.Generator) -> None:
    """Upright hammer: handle, head with a face towards the front, claw, wedge or second face behind."""
    grip, head = (wood(rng) if rng.random() < 0.6 else color(rng)), METAL * rng.uniform(0.4, 1.0)
    length, thick = rng.uniform(1.2, 1.7), rng.uniform(0.08, 0.11)
    parts.cone((0, 0, 0), (0, 0, length), thick * 1.2, thick, grip, rounding=0.04)
    if rng.random() < 0.5:
        parts.cylinder((0, 0, 0), (0, 0, length * 0.4), thick * 1.45, color(rng), rounding=0.05)
    z, reach, size = length - 0.02, rng.uniform(0.28, 0.4), rng.uniform(0.14, 0.2)
    parts.box((0, 0, z), (size * 0.9, 0.17, size * 0.9), head)
    parts.cylinder((0, 0, z), (0, -reach, z), size * 0.85, head)
    parts.cylinder((0, -reach + 0.05, z), (0, -reach - 0.1, z), size * 1.15, head, rounding=0.03)
    style = rng.integers(3)
    if style == 0:
        parts.cylinder((0, 0, z), (0, reach + 0.1, z), size * 1.1, head)
    elif style == 1:
        parts.capsule((0.04, 0.1, z + 0.02), (0.14, reach + 0.15, z - 0.12), 0.085, head, mirror=True)
    else:
        parts.box((0, reach * 0.7, z), (size * 0.9, reach * 0.6, 0.09), head, rotation=about("x", -8))


def wrench(parts: Parts, rng: np.random.Generator) -> None:
    """Upright open-ended wrench or screwdriver."""
    tint = METAL * rng.uniform(0.5, 1.0) if rng.random() < 0.5 else color(rng)
    length = rng.uniform(1.1, 1.6)
    if rng.random() < 0.5:
        grip = rng.uniform(0.16, 0.24)
        parts.cylinder((0, 0, 0), (0, 0, length * 0.45), grip, tint, rounding=0.08)
        parts.cone((0, 0, length * 0.4), (0, 0, length * 0.55), grip, 0.12, shade(tint, 0.7))
        parts.cylinder((0, 0, length * 0.5), (0, 0, length), 0.085, METAL)
        parts.box((0, 0, length), (0.15, 0.075, 0.14), METAL)
        return
    thick = rng.uniform(0.075, 0.1)
    parts.box((0, 0, length / 2), (rng.uniform(0.1, 0.14), thick, length / 2), tint)
    jaw = rng.uniform(0.26, 0.34)
    if rng.random() < 0.5:
        parts.torus((0, 0, -0.12), 0.22, 0.095, tint, rotation=about("x", 90))
    else:
        parts.box((0, 0, -0.05), (0.22, thick, 0.16), tint, rounding=0.06)
    parts.cylinder((0, -thick, length + jaw * 0.6), (0, thick, length + jaw * 0.6), jaw, tint)
    parts.box((0, 0, length + jaw * 1.1), (jaw * 0.45, 0.3, jaw * 0.75), DARK, subtract=True)


def robot(parts: Parts, rng: np.random.Generator) -> None:
    """Toy robot: box or drum body, head with eyes and antenna, arms down or raised, legs or tracks."""
    body, second = color(rng), color(rng)
    x, y, tall = rng.uniform(0.3, 0.42), rng.uniform(0.2, 0.3), rng.uniform(0.3, 0.42)
    if rng.random() < 0.6:
        parts.box((0, 0, 0), (x, y, tall), body, rounding=0.06)
    else:
        parts.cone((0, 0, -tall), (0, 0, tall), x * 0.8, x, body, rounding=0.06)
    parts.box((0, -y * 0.95, rng.uniform(-0.1, 0.1)), (x * 0.55, 0.09, tall * 0.4), shade(second, 0.8))
    head, z = rng.uniform(0.2, 0.28), tall + 0.26
    parts.cylinder((0, 0, tall - 0.05), (0, 0, z), 0.1, METAL)
    if rng.random() < 0.5:
        parts.box((0, 0, z), (head * 1.1, head * 0.9, head * 0.8), second, rounding=0.05)
    else:
        parts.ellipsoid((0, 0, z), (head, head, head), second)
    parts.ellipsoid((head * 0.45, -head * 0.88, z + 0.03), 0.075, WHITE if rng.random() < 0.5 else DARK, mirror=True)
    if rng.random() < 0.6:
        parts.cylinder((0, 0, z), (0, 0, z + head + 0.18), 0.06, METAL)
        parts.ellipsoid((0, 0, z + head + 0.2), 0.09, color(rng))
    shoulder = (x + 0.06, 0, tall * 0.7)
    hand = (x + 0.14, rng.uniform(-0.3, 0), -tall * 0.5) if rng.random() < 0.6 else (x + 0.25, 0, tall * 1.5)
    parts.capsule(shoulder, hand, 0.08, shade(body, 0.8), mirror=True)
    parts.ellipsoid(hand, 0.12, second, mirror=True)
    if rng.random() < 0.65:
        parts.cylinder((x * 0.5, 0, -tall), (x * 0.5, 0, -tall - 0.35), 0.1, shade(body, 0.7), mirror=True)
        parts.box((x * 0.55, -0.07, -tall - 0.38), (0.14, 0.22, 0.08), second, mirror=True)
    else:
        parts.box((x * 0.75, 0, -tall - 0.1), (0.12, y * 1.4, 0.14), DARK, rounding=0.1, mirror=True)


def snowman(parts: Parts, rng: np.random.Generator) -> None:
    """Two or three balls, eyes, carrot nose, hat, arms or scarf."""
    white = WHITE * rng.uniform(0.85, 1.0)
    if rng.random() < 0.3:
        white = color(rng, pale=True)
    sizes = [rng.uniform(0.45, 0.55), rng.uniform(0.32, 0.4)]
    if rng.random() < 0.6:
        sizes.append(rng.uniform(0.23, 0.28))
    z = 0.0
    for index, size in enumerate(sizes):
        if index:
            z += 0.72 * (sizes[index - 1] + size)
        parts.ellipsoid((0, 0, z), size, white, smooth=0.02)
    head = sizes[-1]
    parts.ellipsoid((head * 0.4, -head * 0.85, z + head * 0.25), 0.065, DARK, mirror=True)
    parts.cone((0, -head * 0.8, z), (0, -head - 0.25, z), 0.085, 0.03, (0.95, 0.5, 0.1), rounding=0.02)
    hat = rng.integers(3)
    if hat == 0:
        tint = color(rng)
        parts.cylinder((0, 0, z + head * 0.65), (0, 0, z + head * 0.65 + 0.12), head * 1.2, tint)
        parts.cylinder((0, 0, z + head * 0.7), (0, 0, z + head * 1.6), head * 0.75, tint)
    elif hat == 1:
        parts.cone((0, 0, z + head * 0.55), (0, 0, z + head * 1.9), head * 0.9, 0.05, color(rng), rounding=0.03)
    if rng.random() < 0.6:
        below = z - 0.72 * (sizes[-2] + head) if len(sizes) == 3 else 0.1
        lift = rng.uniform(-0.1, 0.35)
        parts.capsule((sizes[-2] * 0.8, 0, below), (sizes[-2] + 0.35, 0, below + lift), 0.06, wood(rng), mirror=True)
    if rng.random() < 0.5:
        parts.torus((0, 0, z - head * 0.75), head * 0.8, 0.085, color(rng))


def tree(parts: Parts, rng: np.random.Generator) -> None:
    """Conifer of stacked cones, round crown or clustered crown on a trunk."""
    trunk, crown = wood(rng), leaf(rng)
    height, thick = rng.uniform(0.3, 0.7), rng.uniform(0.1, 0.16)
    parts.cone((0, 0, 0), (0, 0, height + 0.2), thick * 1.3, thick, trunk)
    style, wide = rng.integers(3), rng.uniform(0.4, 0.6)
    if style == 0:
        layers, z, step = int(rng.integers(2, 4)), height, rng.uniform(0.35, 0.5)
        for index in range(layers):
            radius = wide * (1 - 0.22 * index)
            parts.cone(
                (0, 0, z),
                (0, 0, z + step * 1.5),
                radius,
                0.05 + 0.3 * radius * (index < layers - 1),
                crown,
                rounding=0.03,
            )
            z += step
    elif style == 1:
        parts.ellipsoid((0, 0, height + wide * 0.9), (wide, wide, wide * rng.uniform(0.85, 1.5)), crown)
    else:
        z = height + wide * 0.7
        parts.ellipsoid((0, 0, z + 0.2), wide * 0.75, crown, smooth=0.03)
        parts.ellipsoid((wide * 0.65, rng.uniform(-0.1, 0.1), z), wide * 0.55, shade(crown, 0.9), mirror=True)
        parts.ellipsoid((0, -wide * 0.6, z), wide * 0.5, shade(crown, 1.1))
        parts.ellipsoid((0, wide * 0.6, z), wide * 0.5, shade(crown, 0.9))
    if style and rng.random() < 0.3:
        for height_of_fruit in rng.uniform(0.5, 1.2, 2) * wide:
            parts.ellipsoid((wide * 0.6, -wide * 0.6, height + height_of_fruit), 0.09, (0.85, 0.12, 0.1), mirror=True)


def cactus(parts: Parts, rng: np.random.Generator) -> None:
    """Pot with a columnar cactus with arms, a ball cactus or a leafy plant."""
    pot, green = color(rng, hue=(0.0, 0.12)) if rng.random() < 0.6 else color(rng), leaf(rng)
    radius, height = rng.uniform(0.3, 0.42), rng.uniform(0.4, 0.55)
    parts.cone((0, 0, 0), (0, 0, height), radius * rng.uniform(0.65, 0.9), radius, pot, rounding=0.02)
    parts.cylinder((0, 0, height - 0.1), (0, 0, height + 0.03), radius * 1.12, shade(pot, 0.85))
    style = rng.integers(3)
    if style == 0:
        tall = rng.uniform(0.6, 1.0)
        parts.capsule((0, 0, height), (0, 0, height + tall), rng.uniform(0.13, 0.19), green)
        elbow, tip = height + tall * rng.uniform(0.3, 0.5), height + tall * rng.uniform(0.65, 1.0)
        parts.capsule((0.1, 0, elbow), (0.33, 0, elbow), 0.09, green, mirror=True)
        parts.capsule((0.33, 0, elbow), (0.33, 0, tip), 0.09, green, mirror=True)
    elif style == 1:
        ball = rng.uniform(0.3, 0.4)
        parts.ellipsoid((0, 0, height + ball * 0.75), (ball, ball, ball * rng.uniform(0.9, 1.2)), green)
        parts.ellipsoid((0, 0, height + ball * 1.75), 0.12, color(rng))
    else:
        parts.cylinder((0, 0, height), (0, 0, height + 0.4), 0.07, green)
        up, out = rng.uniform(0.35, 0.7), rng.uniform(0.35, 0.5)
        parts.capsule((0.05, 0, height + 0.1), (out, 0, height + up), 0.09, green, mirror=True)
        parts.capsule((0, 0.05, height + 0.1), (0, out, height + up), 0.09, shade(green, 0.85))
        parts.capsule((0, -0.05, height + 0.1), (0, -out, height + up * 0.9), 0.09, shade(green, 1.1))
        parts.ellipsoid((0, 0, height + 0.5), (0.16, 0.16, 0.2), green if rng.random() < 0.5 else color(rng))


def mushroom(parts: Parts, rng: np.random.Generator) -> None:
    """Stem and cap (dome, cone or flat), optional dots and ring."""
    stem, cap = color(rng, pale=True), color(rng)
    height, thick, wide = rng.uniform(0.5, 0.9), rng.uniform(0.13, 0.25), rng.uniform(0.42, 0.6)
    parts.cone((0, 0, 0), (0, 0, height), thick * rng.uniform(1.0, 1.4), thick, stem, rounding=0.04)
    style, dome = rng.integers(3), rng.uniform(0.3, 0.5)
    if style == 0:
        parts.ellipsoid((0, 0, height), (wide, wide, dome), cap)
    elif style == 1:
        parts.cone((0, 0, height - 0.1), (0, 0, height + dome), wide, 0.08, cap, rounding=0.06)
    else:
        parts.ellipsoid((0, 0, height), (wide, wide, 0.17), cap)
    if style != 2 and rng.random() < 0.6:
        lift = 0.6 if style == 0 else 0.35
        parts.ellipsoid((wide * 0.5, -wide * 0.5, height + dome * lift), 0.1, WHITE, mirror=True)
        parts.ellipsoid((0, -wide * 0.35, height + dome * 0.85), 0.1, WHITE)
