"""Signed distances of single primitives against values worked out by hand, and the table's bookkeeping."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastsam3d.procedural.builder import HALF_EXTENT, MINIMUM_HALF_THICKNESS, Parts, about, along
from fastsam3d.procedural.primitives import CompiledTable, bounding_box, rotation_matrices, sort_table

RED, BLUE = (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)


def compiled(parts: Parts) -> CompiledTable:
    """The parts as they were given, without normalisation."""
    return CompiledTable.from_table(sort_table(np.stack(parts.rows)).astype(np.float32))


def distance(parts: Parts, *points) -> list[float]:
    return compiled(parts).sdf(torch.tensor(points, dtype=torch.float32)).tolist()


def test_box_faces_edges_and_rounded_corner() -> None:
    parts = Parts()
    parts.box((0.1, 0, 0), (0.2, 0.1, 0.3), RED, rounding=0.05)
    corner = 0.05 * (3**0.5 - 1)  # the rounded corner lies this far inside the sharp one
    expected = [0.1, 0.05, -0.1, corner]
    points = [(0.4, 0, 0), (0.1, 0.15, 0), (0.1, 0, 0), (0.3, 0.1, 0.3)]
    assert distance(parts, *points) == pytest.approx(expected, abs=1e-6)


def test_cylinder_cone_and_their_caps() -> None:
    parts = Parts()
    parts.cylinder((0, 0, -0.2), (0, 0, 0.2), 0.1, RED, rounding=0.0)
    assert distance(parts, (0.3, 0, 0), (0, 0, 0.5), (0.13, 0, 0.24)) == pytest.approx([0.2, 0.3, 0.05], abs=1e-6)
    cone = Parts()
    cone.cone((0, 0, 0), (0, 0, 0.4), 0.3, 0.0, RED)  # slope 3-4-5: the side's normal is (0.8, 0, 0.6)
    assert distance(cone, (0.15 + 0.08, 0, 0.2 + 0.06)) == pytest.approx([0.1], abs=1e-6)
    assert distance(cone, (0, 0, 0.1), (0, 0, -0.1)) == pytest.approx([-0.1, 0.1], abs=1e-6)


def test_sphere_torus_and_capsule() -> None:
    sphere = Parts()
    sphere.ellipsoid((0, 0, 0.1), 0.2, RED)
    assert distance(sphere, (0, 0, 0.5), (0, 0, 0.1), (0.1, 0, 0.1)) == pytest.approx([0.2, -0.2, -0.1], abs=1e-5)
    torus = Parts()
    torus.torus((0, 0, 0), 0.3, 0.05, RED)
    assert distance(torus, (0, 0, 0), (0.3, 0, 0.1), (0, -0.3, 0)) == pytest.approx([0.25, 0.05, -0.05], abs=1e-6)
    capsule = Parts()
    capsule.capsule((0, 0, 0), (0.3, 0, 0.4), 0.05, RED)
    assert distance(capsule, (0.15, 0.2, 0.2), (0.6, 0, 0.8)) == pytest.approx([0.15, 0.45], abs=1e-6)


def test_ellipsoid_vanishes_on_its_surface_and_has_unit_slope_there() -> None:
    parts = Parts()
    parts.ellipsoid((0, 0, 0), (0.4, 0.2, 0.1), RED)
    directions = torch.nn.functional.normalize(torch.randn(50, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    surface = directions * torch.tensor([0.4, 0.2, 0.1])
    normal = torch.nn.functional.normalize(surface / torch.tensor([0.16, 0.04, 0.01]), dim=1)
    table = compiled(parts)
    assert table.sdf(surface).abs().max() < 1e-6
    assert torch.allclose(table.sdf(surface + 1e-3 * normal), torch.full((50,), 1e-3), atol=5e-5)


def test_rotated_primitive_is_the_primitive_at_rotated_points() -> None:
    straight, turned = Parts(), Parts()
    straight.box((0, 0, 0), (0.3, 0.1, 0.2), RED)
    turned.box((0, 0, 0), (0.3, 0.1, 0.2), RED, rotation=about("z", 90))
    # a quarter turn takes x to y
    assert distance(turned, (0.05, 0.4, 0.1)) == pytest.approx(distance(straight, (0.4, -0.05, 0.1)), abs=1e-6)
    matrix = rotation_matrices(np.array([along((1.0, 2.0, -2.0))]))[0]
    assert matrix[:, 2] == pytest.approx([1 / 3, 2 / 3, -2 / 3])
    assert along((0, 0, -1)) == (0.0, 1.0, 0.0, 0.0)


def test_mirrored_parts_are_mirror_images() -> None:
    parts = Parts()
    parts.cone((0.1, -0.2, 0), (0.3, 0.1, 0.4), 0.1, 0.05, RED, mirror=True)
    parts.box((0.2, 0, 0), (0.1, 0.05, 0.2), BLUE, rotation=about("y", 30), mirror=True)
    points = torch.rand(200, 3, generator=torch.Generator().manual_seed(0)) - 0.5
    table = compiled(parts)
    assert torch.allclose(table.sdf(points), table.sdf(points * torch.tensor([-1.0, 1, 1])), atol=1e-6)


def test_union_subtraction_smoothing_and_colour() -> None:
    parts = Parts()
    parts.ellipsoid((0.3, 0, 0), 0.2, BLUE, subtract=True)  # sorted behind the unions whatever the order
    parts.ellipsoid((0, 0, 0), 0.3, RED)
    assert distance(parts, (0, 0, 0), (0.2, 0, 0), (0.5, 0, 0)) == pytest.approx([-0.1, 0.1, 0.2], abs=1e-5)
    smooth = Parts()
    smooth.ellipsoid((-0.2, 0, 0), 0.1, RED)
    smooth.ellipsoid((0.2, 0, 0), 0.1, BLUE, smooth=0.1)
    # half way both distances are 0.1; equal distances lose k / 4
    assert distance(smooth, (0, 0, 0)) == pytest.approx([0.1 - 0.1 / 4], abs=1e-5)
    colors = compiled(smooth).color(torch.tensor([[-0.2, 0, 0.1], [0.2, 0.1, 0]]))
    assert colors.tolist() == [list(RED), list(BLUE)]


def test_bounds_hold_every_kind_tightly() -> None:
    parts = Parts()
    parts.box((0, 0, 0), (0.3, 0.1, 0.2), RED, rotation=about("z", 30), rounding=0.05)
    parts.cone((0.1, 0.2, 0), (0.3, -0.1, 0.4), 0.1, 0.02, RED)
    parts.torus((0, 0, -0.3), 0.2, 0.04, RED, rotation=about("x", 50))
    parts.capsule((0, 0, 0), (-0.4, 0.1, 0.1), 0.05, RED)
    parts.ellipsoid((0, -0.3, 0), (0.1, 0.2, 0.05), RED, rotation=about("y", 40))
    for row in parts.rows:
        table = row[None].astype(np.float32)
        lower, upper = bounding_box(table)
        axes = [torch.linspace(float(a) - 0.02, float(b) + 0.02, 90) for a, b in zip(lower, upper, strict=True)]
        grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
        inside = grid[CompiledTable.from_table(table).sdf(grid) < 0].numpy()
        assert np.abs(inside.min(0) - lower).max() < 0.012
        assert np.abs(inside.max(0) - upper).max() < 0.012
        assert (inside >= lower).all() and (inside <= upper).all()


def test_finished_tables_are_centred_full_size_and_sturdy() -> None:
    parts = Parts()
    parts.box((5, 0, 0), (4, 1, 0.01), RED)
    parts.capsule((5, 0, 0), (5, 0, 1), 0.001, BLUE)
    table = parts.table()
    lower, upper = bounding_box(table)
    assert (lower + upper) / 2 == pytest.approx(np.zeros(3), abs=1e-6)
    assert (upper - lower).max() == pytest.approx(2 * HALF_EXTENT, abs=1e-6)
    assert table[0, 10] >= 0.97 * MINIMUM_HALF_THICKNESS
    assert table[1, 8] >= 0.97 * MINIMUM_HALF_THICKNESS
