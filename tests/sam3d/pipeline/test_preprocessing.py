"""Crop boxes, padding, moments and the error messages of the condition inputs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fastsam3d.basics.pixels import as_mask
from fastsam3d.errors import UserError
from fastsam3d.sam3d.pipeline.preprocessing import (
    as_pointmap,
    crop_box,
    fronto_parallel_points,
    fronto_parallel_rays,
    object_moments,
    prepare_condition,
)
from fastsam3d.sam3d.pipeline.resizing import crop, pad_to_square, resize_image, resize_nearest, square_box


def rectangle(height: int, width: int, top: int, left: int, bottom: int, right: int) -> torch.Tensor:
    mask = torch.zeros(height, width, dtype=torch.bool)
    mask[top : bottom + 1, left : right + 1] = True
    return mask


def test_crop_box_is_the_bounding_box_times_one_point_two() -> None:
    # Columns 10..30, rows 20..30: size int(20 * 1.2) = 24, centre (20, 25), half 12.
    assert crop_box(rectangle(60, 80, 20, 10, 30, 30)) == (8, 13, 32, 37)


def test_crop_box_reaches_beyond_the_image() -> None:
    # Columns 0..10: centre 5, half 6, so it starts at -1.
    assert crop_box(rectangle(40, 40, 10, 0, 20, 10)) == (-1, 9, 11, 21)


@pytest.mark.parametrize(("bottom", "right"), [(5, 5), (6, 20), (20, 6)])
def test_crop_box_refuses_slivers(bottom: int, right: int) -> None:
    with pytest.raises(UserError, match="at least 3 x 3"):
        crop_box(rectangle(40, 40, 5, 5, bottom, right))


def test_crop_fills_what_is_outside_with_zero() -> None:
    image = torch.arange(1.0, 10.0).reshape(1, 3, 3)
    expected = [[0, 0, 0, 0], [0, 1, 2, 3], [0, 4, 5, 6], [0, 7, 8, 9]]
    assert crop(image, (-1, -1, 3, 3))[0].tolist() == expected


def test_padding_is_centred_and_the_odd_pixel_goes_last() -> None:
    padded = pad_to_square(torch.ones(1, 1, 4))
    assert padded[0, :, 0].tolist() == [0, 1, 0, 0]


def test_resizing_a_photograph_averages_instead_of_picking() -> None:
    checkerboard = 255 * ((torch.arange(64)[:, None] + torch.arange(64)) % 2)
    small = resize_image(checkerboard[..., None].expand(-1, -1, 3).to(torch.uint8), (0, 0, 64, 64), 8)
    assert torch.allclose(small, torch.full((3, 8, 8), 0.5), atol=0.02)


@pytest.mark.parametrize("box", [(3, 5, 30, 32), (-7, -2, 18, 23), (10, 3, 45, 39), (5, 5, 20, 21)])
@pytest.mark.parametrize("size", [9, 16, 50])
def test_picking_pixels_is_cropping_padding_and_nearest_resizing(box, size: int) -> None:
    values = torch.rand(2, 33, 41, generator=torch.Generator().manual_seed(0)) + 1
    padded = pad_to_square(crop(values, box), torch.nan)
    expected = torch.nn.functional.interpolate(padded[None], (size, size), mode="nearest")[0]
    picked, beyond = resize_nearest(values.movedim(0, -1), box, size, unknown=torch.nan)
    picked = torch.where(beyond, 0.0, picked)
    assert torch.equal(picked.nan_to_num(-1), expected.nan_to_num(-1))


@pytest.mark.parametrize("shape", [(20, 40), (41, 20), (7, 7)])
def test_the_square_box_pads_a_whole_image(shape) -> None:
    values = torch.rand(1, *shape)
    assert torch.equal(crop(values, square_box(*shape)), pad_to_square(values))


def test_moments_by_hand() -> None:
    points = torch.tensor([[0.0, 1.0, 5.0], [2.0, 1.0, 6.0], [4.0, 1.0, 7.0], [9.0, torch.inf, 9.0]])
    scale, shift = object_moments(points)
    assert shift.tolist() == [2.0, 1.0, 6.0]
    # Largest distances 2, 0, 2.
    assert scale.tolist() == [2.0, 2.0, 2.0]
    # Two points take the lower median.
    assert object_moments(points[:2])[1].tolist() == [0.0, 1.0, 5.0]


def test_the_scale_of_the_scene_may_come_from_all_points() -> None:
    scene = torch.zeros(6, 3)
    scene[:, 0] = torch.tensor([-1.0, 0.0, 1.0, -7.0, 10.0, torch.nan])
    # The object's distances are 1, 0, 1; those of all known points 1, 0, 1, 7, 10.
    assert object_moments(scene[:3])[0].tolist() == [1.0] * 3
    assert object_moments(scene[:3], scene)[0].tolist() == [1.0] * 3
    assert object_moments(scene[:2], scene[1:])[0].tolist() == [2.0] * 3


def test_moments_without_a_known_point_are_neutral() -> None:
    scale, shift = object_moments(torch.full((4, 3), torch.nan))
    assert scale.tolist() == [1.0] * 3
    assert shift.tolist() == [0.0] * 3


def test_plane_at_unit_depth_spans_the_assumed_field_of_view() -> None:
    x, y = fronto_parallel_rays(100, 200)
    edge = math.tan(math.radians(30))
    pixel = 2 * edge / 200
    # Left in the picture is +x, up is +y.
    assert x[0].item() == pytest.approx(edge - pixel / 2)
    assert y[0].item() == pytest.approx(edge / 2 - pixel / 2)
    assert x[-1].item() == pytest.approx(-edge + pixel / 2)
    points = fronto_parallel_points(rectangle(100, 200, 3, 7, 3, 8))
    assert torch.equal(points, torch.stack([x[[7, 8]], y[[3, 3]], torch.ones(2)], dim=1))


@pytest.mark.parametrize("full", [1, 255])
def test_masks_of_numbers_are_split_at_half_of_their_maximum(full: int) -> None:
    mask = np.zeros((8, 8), dtype=np.uint8)
    mask[2:6, 2:6] = full
    assert as_mask(mask, 8, 8).sum() == 16


def test_mask_errors_name_the_way_out() -> None:
    with pytest.raises(UserError, match="empty"):
        as_mask(np.zeros((8, 8), dtype=bool), 8, 8)
    with pytest.raises(UserError, match="9 x 8 pixels, the image 8 x 8"):
        as_mask(np.ones((8, 9), dtype=bool), 8, 8)
    with pytest.raises(UserError, match="expected uint8"):
        prepare_condition(np.zeros((8, 8, 3), dtype=np.float32), np.ones((8, 8), dtype=bool))


def test_pointmap_of_another_size_is_resized_and_infinite_points_are_unknown() -> None:
    points = np.ones((4, 8, 3), dtype=np.float32)
    points[0, 0] = [1.0, np.inf, 1.0]
    resized = as_pointmap(points, 8, 16)
    assert resized.shape == (8, 16, 3)
    assert resized[:2, :2].isnan().all() and (resized[:2, 2:] == 1).all()
    assert torch.isfinite(resized[2:]).all()
    with pytest.raises(UserError, match="aspect"):
        as_pointmap(points, 8, 8)


def test_condition_inputs_without_pointmap() -> None:
    image = np.zeros((40, 60, 3), dtype=np.uint8)
    mask = np.zeros((40, 60), dtype=bool)
    mask[10:21, 20:31] = True
    image[mask] = 255
    inputs = prepare_condition(image, mask, image_size=16, scale_over="mask")
    assert inputs["image"].shape == (1, 3, 16, 16)
    assert inputs["rgb_image_mask"].shape == (1, 1, 16, 16)
    assert torch.isnan(inputs["pointmap"]).all()
    assert torch.isnan(inputs["rgb_pointmap"]).all()
    # The crop is 12 pixels wide and the object 11, so that it fills all but the border.
    assert inputs["mask"].mean() > 0.7
    # The object's middle pixel is (25, 15), with the principal point at (30, 20) and 60 pixels for the view's
    # width.
    focal = 30 / math.tan(math.radians(30))
    expected = torch.tensor([[(30 - 25.5) / focal, (20 - 15.5) / focal, 1.0]])
    assert torch.allclose(inputs["pointmap_shift"], expected)
    # Chebyshev distances about the middle of an 11 x 11 square: the 61st of 121 is 4 pixels.
    assert torch.allclose(inputs["pointmap_scale"], torch.full((1, 3), 4 / focal))


def test_condition_inputs_with_pointmap_are_normalised_and_letter_boxes_are_zero() -> None:
    image = np.full((20, 40, 3), 128, dtype=np.uint8)
    mask = np.zeros((20, 40), dtype=bool)
    mask[5:16, 0:11] = True
    points = fronto_parallel_points(torch.ones(20, 40, dtype=torch.bool)).reshape(20, 40, 3).numpy() * 3
    inputs = prepare_condition(image, mask, points, image_size=40, scale_over="mask")
    scale, shift = inputs["pointmap_scale"][0], inputs["pointmap_shift"][0]
    full = inputs["rgb_pointmap"][0]
    assert (full[:, :10] == 0).all()
    assert (full[:, 30:] == 0).all()
    restored = full[:, 10:30] * scale[:, None, None] + shift[:, None, None]
    assert torch.allclose(restored, torch.from_numpy(points).movedim(-1, 0), atol=1e-5)
    assert torch.allclose(shift[2], torch.tensor(3.0))
    # The crop starts left of the picture; that area is zero, not unknown.
    assert torch.isfinite(inputs["pointmap"]).all()
    assert (inputs["pointmap"][0, :, :, 0] == 0).all()
