from __future__ import annotations

import numpy as np
import pytest
from evaluation_shapes import box_mesh

from fastsam3d.errors import UserError
from fastsam3d.evaluation.metrics.surfaces import (
    EMPTY_DISTANCE,
    Surface,
    compare_surfaces,
    intersection_over_union,
    sample_surface,
    surface_occupancy,
    surface_viou,
)


def plane(offset: float, count: int = 21) -> Surface:
    """A square lattice of points in the plane z = offset, 0.1 apart."""
    line = np.linspace(-1, 1, count)
    points = np.stack([*(axis.ravel() for axis in np.meshgrid(line, line)), np.full(count**2, offset)], axis=1)
    return Surface(points, np.tile([0.0, 0.0, 1.0], (count**2, 1)), points.min(0), points.max(0))


def test_known_offset_gives_that_chamfer_distance_and_a_step_in_the_f_score():
    result = compare_surfaces(plane(0.03), plane(0.0), normalise="none")
    assert result["cd"] == pytest.approx(0.03)
    assert result["cd_squared"] == pytest.approx(0.0009)
    assert (result["f1_005"], result["f1_002"], result["f1_001"]) == (100.0, 0.0, 0.0)
    assert result["normal_consistency"] == pytest.approx(1.0)


def test_f_score_is_the_harmonic_mean_of_precision_and_recall():
    whole, half = plane(0.0), plane(0.0)
    kept = half.points[:, 0] < -1e-9  # 210 of 441 points, 0.1 apart: all precise, 210/441 recalled
    half = Surface(half.points[kept], half.normals[kept], half.low, half.high)
    result = compare_surfaces(half, whole, normalise="none")
    recall = 210 / 441
    assert result["f1_005"] == pytest.approx(100 * 2 * recall / (1 + recall))


def test_separate_normalisation_forgives_place_and_size():
    generator = np.random.default_rng(0)
    vertices, faces = box_mesh((-0.4, -0.31, -0.21), (0.4, 0.31, 0.21))
    a = sample_surface(vertices, faces, 40_000, generator)
    b = sample_surface(vertices * 0.5 + [0.1, 0.2, 0.0], faces, 40_000, generator)
    assert compare_surfaces(a, b)["f1_005"] > 99
    assert compare_surfaces(a, b, normalise="none")["f1_005"] < 60
    assert surface_viou(a, b) > 0.75  # not 1: 40,000 points leave some of the 12,000 cells unmet


def test_sampling_is_uniform_by_area():
    # Two squares of area 1 and 3 as one mesh: a quarter of the points belongs to the smaller one.
    vertices = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [5, 0, 0], [8, 0, 0], [8, 1, 0], [5, 1, 0]])
    faces = np.array([[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7], [0, 0, 1]])  # the last has no area
    surface = sample_surface(vertices, faces, 40_000, np.random.default_rng(1))
    assert (surface.points[:, 0] < 2).mean() == pytest.approx(0.25, abs=0.01)
    assert surface.points[surface.points[:, 0] < 2].mean(0) == pytest.approx([0.5, 0.5, 0], abs=0.01)
    assert np.allclose(surface.normals, [0, 0, 1])
    assert np.array_equal(surface.low, [0, 0, 0])
    assert np.array_equal(surface.high, [8, 1, 0])


def test_empty_prediction_gets_the_worst_values_and_no_exception():
    empty = sample_surface(np.zeros((0, 3)), np.zeros((0, 3)), 100, np.random.default_rng(0))
    result = compare_surfaces(empty, plane(0.0))
    assert result["cd"] == EMPTY_DISTANCE
    assert result["f1_005"] == 0
    assert surface_viou(empty, plane(0.0)) == 0


def test_occupancy_keeps_the_upper_face_and_drops_what_is_outside():
    occupied = surface_occupancy(np.array([[1.0, 1.0, 1.0], [-1.0, -1.0, -1.0], [1.1, 0.0, 0.0]]), 4)
    assert occupied.sum() == 2
    assert occupied[3, 3, 3]
    assert occupied[0, 0, 0]


def test_intersection_over_union_by_hand():
    a, b = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    a[:2], b[1:3] = True, True  # 8 and 8 cells, 4 shared
    assert intersection_over_union(a, b) == pytest.approx(4 / 12)
    assert intersection_over_union(a & ~a, b & ~b) == 1.0


def test_unknown_normalisation_is_refused():
    with pytest.raises(UserError, match="separately"):
        compare_surfaces(plane(0), plane(0), normalise="together")
