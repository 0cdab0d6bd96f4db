"""Compares the colours and the normals of a mesh with those of the true object, point by point.

Each point of the mesh is compared with the nearest place of the true surface. Points further than `NEAR` from it
do not count: there the shape is wrong, which other metrics say, and no colour is right.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastsam3d.evaluation.metrics.signed_distance import distance_of, project_to_surface
from fastsam3d.evaluation.metrics.surfaces import as_array
from fastsam3d.meshes.geometry import face_cross_products, interpolate, sample_surface

NEAR = 0.04
"""Distance from the true surface, object units, up to which a point counts."""
POINTS = 10_000
DARKEST = 0.05
"""Sum of the three values of a colour below which its hue counts as darker, because it means little."""


def compare_colors(mesh: Any, shape: Any, seed: int, count: int = POINTS) -> dict[str, float]:
    """Compares points that are spread evenly over a mesh with the true object.

    Args:
        mesh: with `vertices [V, 3]`, `faces [F, 3]` and `vertex_colors [V, 3]` in sRGB 0..1, or without colours.
        shape: the object, with `.sdf` and `.color`, both functions of tensors `[P, 3]`, or without `.color`.
        seed: of the points.
        count: number of points.

    Returns:
        "color_error": mean absolute difference of the colours, 0..1. "hue_error": the same of colours divided by the
        sum of their values, so that brightness does not count. "normal_error_deg": mean angle between the normals.
        NaN where nothing can be compared. "near_share": share of the points that count.
    """
    vertices, faces = as_array(mesh.vertices).reshape(-1, 3), as_array(mesh.faces, np.int64).reshape(-1, 3)
    unknown = dict.fromkeys(("color_error", "hue_error", "normal_error_deg"), math.nan) | {"near_share": 0.0}
    cross = face_cross_products(vertices, faces) if len(faces) else np.zeros((0, 3))
    if not np.isfinite(cross).all() or not np.abs(cross).sum() > 0:
        return unknown
    chosen, weights = sample_surface(vertices, faces, count, np.random.default_rng(seed))
    points = interpolate(vertices, faces, chosen, weights)
    distance = distance_of(shape)
    near = np.abs(distance(points)) < NEAR
    if not near.any():
        return unknown
    places, true_normals = project_to_surface(distance, points[near], reach=NEAR)
    own = cross[chosen[near]]
    own /= np.maximum(np.linalg.norm(own, axis=1, keepdims=True), 1e-30)
    angles = np.degrees(np.arccos(np.clip((own * true_normals).sum(axis=1), -1, 1)))
    result = unknown | {"normal_error_deg": float(angles.mean()), "near_share": float(near.mean())}
    colors = getattr(mesh, "vertex_colors", None)
    if colors is None or not hasattr(shape, "color"):
        return result
    import torch

    shown = interpolate(as_array(colors).reshape(-1, 3), faces, chosen, weights)[near]
    true = as_array(shape.color(torch.from_numpy(places.astype(np.float32))))
    result["color_error"] = float(np.abs(shown - true).mean())
    result["hue_error"] = float(np.abs(hue(shown) - hue(true)).mean())
    return result


def hue(colors: np.ndarray) -> np.ndarray:
    """Colours `[N, 3]` without their brightness; nearly black ones come out as black."""
    return colors / np.maximum(colors.sum(axis=1, keepdims=True), DARKEST)
