"""Flat objects for training pictures: lists of shapes that together are one object, each with a material of its own.

A shape is a polygon in the object's square, -1 to 1, x to the right and y down, with the number of its material. Shapes
lie from the back to the front. What matters is the variety of outlines and that unlike parts belong together: a
creature with a pattern, a person with skin, hair and clothes, a cup with its saucer, a building with windows.
"""

from __future__ import annotations

import numpy as np

from fastsam3d.training.marker.living_shapes import bust, creature, person
from fastsam3d.training.marker.shapes import Shape, Shapes
from fastsam3d.training.marker.thing_shapes import building, cuboid, flower, frame, simple, union, vehicle, vessel

_KINDS = (creature, bust, person, vessel, flower, cuboid, vehicle, frame, building, simple, union)
_SHARES = np.array([0.18, 0.14, 0.1, 0.12, 0.04, 0.06, 0.07, 0.06, 0.08, 0.07, 0.08])


def random_object(rng: np.random.Generator) -> Shapes:
    """Draws a random object of a random kind, centred in its square, -0.95..0.95 along its longer side."""
    kind = _KINDS[int(rng.choice(len(_KINDS), p=_SHARES))]
    shapes = kind(rng)
    if rng.random() < 0.5:
        shapes = [Shape(s.polygon * [-1, 1], s.material, s.cuts) for s in shapes]
    angle = rng.normal(0, 0.12) if rng.random() < 0.8 else rng.uniform(-np.pi, np.pi)
    c, s = np.cos(angle), np.sin(angle)
    stretch = np.exp(rng.normal(0, 0.12, 2))
    turn = np.array([[c, s], [-s, c]]) * stretch
    shapes = [Shape(shape.polygon @ turn, shape.material, shape.cuts) for shape in shapes]
    points = np.concatenate([shape.polygon for shape in shapes if not shape.cuts])
    low, high = points.min(0), points.max(0)
    scale = 1.9 / max(float((high - low).max()), 1e-6)
    middle = (low + high) / 2
    return [Shape((shape.polygon - middle) * scale, shape.material, shape.cuts) for shape in shapes]
