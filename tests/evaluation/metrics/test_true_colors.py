"""Colours and normals against a ball whose colours are known."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from known_shapes import ball

from fastsam3d.evaluation.metrics.true_colors import compare_colors, hue

RADIUS = 0.4


class Ball:
    """A ball of radius 0.4: red 0.8 above, 0.2 below, the other channels 0.4."""

    def sdf(self, points: torch.Tensor) -> torch.Tensor:
        return points.norm(dim=-1) - RADIUS

    def color(self, points: torch.Tensor) -> torch.Tensor:
        colors = torch.full_like(points, 0.4)
        colors[:, 0] = torch.where(points[:, 2] > 0, 0.8, 0.2)
        return colors


def mesh(factor: float = 1.0, shift: float = 0.0) -> SimpleNamespace:
    shape = ball(4)
    colors = Ball().color(torch.from_numpy(shape.vertices)).numpy() + np.array([0, shift, 0])
    return SimpleNamespace(vertices=shape.vertices * factor, faces=shape.faces, vertex_colors=colors)


def test_right_colours_have_no_error_but_at_their_edge():
    found = compare_colors(mesh(), Ball(), 0)
    # Faces across the equator mix both colours: a ring of about one of their edges, of a 16th of the height.
    assert found["color_error"] < 0.01 and found["hue_error"] < 0.01
    assert found["near_share"] == 1 and found["normal_error_deg"] < 3


def test_a_shifted_channel_by_hand():
    found = compare_colors(mesh(shift=0.3), Ball(), 0)
    assert found["color_error"] == pytest.approx(0.3 / 3, abs=0.006)
    # (0.8, 0.4, 0.4) / 1.6 against (0.8, 0.7, 0.4) / 1.9, and (0.2, 0.4, 0.4) / 1 against (0.2, 0.7, 0.4) / 1.3.
    above = abs(0.8 / 1.6 - 0.8 / 1.9) + abs(0.4 / 1.6 - 0.7 / 1.9) + abs(0.4 / 1.6 - 0.4 / 1.9)
    below = abs(0.2 - 0.2 / 1.3) + abs(0.4 - 0.7 / 1.3) + abs(0.4 - 0.4 / 1.3)
    assert found["hue_error"] == pytest.approx((above + below) / 6, abs=0.006)


def test_what_is_far_from_the_true_surface_does_not_count():
    near = compare_colors(mesh(1.05), Ball(), 0)  # 0.02 outside
    assert near["near_share"] == 1 and near["color_error"] < 0.01
    far = compare_colors(mesh(1.2), Ball(), 0)  # 0.08 outside
    assert far["near_share"] == 0 and np.isnan([far["color_error"], far["normal_error_deg"]]).all()


def test_normals_that_look_inward_are_wrong():
    turned = mesh()
    turned.faces = turned.faces[:, ::-1]
    assert compare_colors(turned, Ball(), 0)["normal_error_deg"] > 177


def test_a_mesh_without_colours_or_faces():
    bare = mesh()
    bare.vertex_colors = None
    found = compare_colors(bare, Ball(), 0)
    assert np.isnan(found["color_error"]) and found["normal_error_deg"] < 3
    bare.faces = np.zeros((0, 3), dtype=np.int64)
    assert compare_colors(bare, Ball(), 0)["near_share"] == 0


def test_hue_ignores_brightness():
    colors = np.array([[0.2, 0.4, 0.6]])
    assert np.allclose(hue(colors), hue(0.5 * colors))
    assert np.allclose(hue(np.zeros((1, 3))), 0)
