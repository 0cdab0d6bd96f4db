"""What a point map does not know."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from fastsam3d.sam3d.pipeline.preprocessing import crop_box, fronto_parallel_rays, prepare_condition, share_picture
from fastsam3d.sam3d.pipeline.unknown_points import flat_guess, known_points, missing_depth


def wall(height: int = 12, width: int = 16, depth: float = 2.0, view: float = 60.0) -> torch.Tensor:
    """Points of a wall that faces a camera."""
    x, y = fronto_parallel_rays(height, width, view)
    x, y = x.expand(height, width), y[:, None].expand(height, width)
    return torch.stack([x, y, torch.ones(height, width)], dim=2) * depth


@pytest.mark.parametrize(
    "point",
    [(0, 0, 0), (0.1, 0.2, -2), (0.1, 0.2, 0), (1, 2, np.inf), (-np.inf, 1, 2), (1, np.nan, 2), (0.1, 0.2, 1e10)],
)
def test_every_kind_of_unknown_point_becomes_nan(point):
    points = wall()
    points[3, 4] = torch.tensor(point, dtype=torch.float32)
    known = known_points(points)
    assert known[3, 4].isnan().all() and int(known.isnan().sum()) == 3
    there = torch.ones(12, 16, dtype=torch.bool)
    there[3, 4] = False
    assert torch.equal(known[there], points[there])


def test_a_good_point_map_is_passed_on_as_it_is():
    points = wall()
    points[0] = torch.nan
    points[1, :, 2] = 1e4  # a mountain behind a table
    assert known_points(points) is points


def test_far_background_over_most_of_the_picture_is_unknown():
    points = wall()
    points[:10] = 1e10
    assert int(known_points(points).isfinite().all(dim=2).sum()) == 2 * 16


@pytest.mark.parametrize("unknown", [0.0, np.nan, np.inf])
def test_zeros_are_the_same_as_nan(unknown):
    mask = np.zeros((12, 16), dtype=bool)
    mask[2:9, 3:12] = True
    image = np.full((12, 16, 3), 90, dtype=np.uint8)
    holes = np.random.default_rng(0).random((12, 16)) < 0.3
    missing, given = wall(), wall()
    missing[torch.from_numpy(holes)], given[torch.from_numpy(holes)] = torch.nan, unknown
    expected = prepare_condition(image, mask, missing.numpy(), image_size=28)
    found = prepare_condition(image, mask, given.numpy(), image_size=28)
    for name, value in expected.items():
        assert torch.equal(value.nan_to_num(-7.0), found[name].nan_to_num(-7.0)), name


def test_an_object_without_depth_is_placed_flat_and_it_is_said(caplog):
    # A glass on a wall three units away: the camera sees through it.
    points = wall(depth=3.0, view=45.0)
    inside = torch.zeros(12, 16, dtype=torch.bool)
    inside[4:8, 6:11] = True
    expected = points[inside].clone()
    points[inside] = torch.nan
    assert torch.allclose(flat_guess(points, inside, crop_box(inside)), expected, atol=1e-5)
    text = missing_depth(points, inside)
    assert "column 6, row 4" in text and "as if it were flat" in text
    image = np.full((12, 16, 3), 90, dtype=np.uint8)
    with caplog.at_level(logging.WARNING):
        inputs = prepare_condition(image, inside.numpy(), points.numpy(), image_size=28)
    assert caplog.messages == [text]
    # The middle of the object's points: of an even count the lower value.
    assert torch.allclose(inputs["pointmap_shift"][0], expected.median(dim=0).values, atol=1e-5)
    points[5, 7] = 3.0
    assert missing_depth(points, inside) is None


def test_a_speck_far_away_changes_nothing_but_is_told_of(caplog):
    image = np.full((60, 80, 3), 90, dtype=np.uint8)
    mask = np.zeros((60, 80), dtype=bool)
    mask[20:40, 20:50] = True
    clean = prepare_condition(image, mask, image_size=28)
    mask[59, 79] = True
    with caplog.at_level(logging.WARNING):
        speckled = prepare_condition(image, mask, image_size=28)
    assert caplog.messages == ["the mask has specks far from the object, of 1 pixels: left out"]
    assert all(torch.equal(clean[name].nan_to_num(-7), speckled[name].nan_to_num(-7)) for name in clean)


def test_a_map_without_any_point_is_none_and_it_is_said(caplog):
    image = np.full((12, 16, 3), 90, dtype=np.uint8)
    with caplog.at_level(logging.WARNING):
        picture = share_picture(image, np.zeros((12, 16, 3), dtype=np.float32), image_size=28)
    assert picture.points is None and "knows no point" in caplog.text


def test_point_maps_may_be_tensors_with_gradients():
    image = np.full((12, 16, 3), 90, dtype=np.uint8)
    for points in (wall().requires_grad_(), wall().to(torch.bfloat16)):
        assert share_picture(image, points, image_size=28).points.shape == (12, 16, 3)
