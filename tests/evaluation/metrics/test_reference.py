from __future__ import annotations

import numpy as np
import pytest
from evaluation_shapes import Ball, Box

from fastsam3d.evaluation.metrics.surfaces import compare_surfaces, surface_viou
from fastsam3d.evaluation.metrics.true_shape import reference_shape


def test_points_lie_on_the_surface_and_normals_point_outwards():
    reference = reference_shape(Ball(0.4), points=5000)
    radius = np.linalg.norm(reference.surface.points, axis=1)
    assert np.abs(radius - 0.4).max() < 1e-4
    outwards = reference.surface.points / radius[:, None]
    assert (reference.surface.normals * outwards).sum(1).min() > 0.999
    assert reference.symmetry == "continuous_z"
    assert reference.family == "ball"
    assert reference.solid.mean() == pytest.approx(4 / 3 * np.pi * 0.4**3, rel=0.01)


def test_points_are_uniform_by_area_and_reach_into_sharp_edges():
    box = Box((0.4, 0.3, 0.2))
    points = reference_shape(box, points=30_000).surface.points
    assert np.abs(box.sdf(points)).max() < 0.002
    # Sides of area 0.24, 0.32 and 0.48, twice each.
    for axis, half, share in ((0, 0.4, 0.24), (1, 0.3, 0.32), (2, 0.2, 0.48)):
        assert (np.abs(np.abs(points[:, axis]) - half) < 1e-3).mean() == pytest.approx(share / 1.04, abs=0.015)


def test_same_points_every_time_and_a_perfect_score_against_itself():
    first, second = (reference_shape(Ball(0.3), points=2000).surface for _ in range(2))
    assert np.array_equal(first.points, second.points)
    result = compare_surfaces(first, second)
    assert result["cd"] == 0
    assert result["f1_001"] == 100
    assert surface_viou(first, second) == 1
