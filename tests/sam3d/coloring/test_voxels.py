"""Colours that a picture shows at an object's voxels, and the fit to them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fastsam3d.sam3d.coloring.camera import RigidPose
from fastsam3d.sam3d.coloring.voxels import TRUST, TRUST_SHIFT, colors_shown, matched_colors, unshaded

LEFT, RIGHT = (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)
BACKGROUND = (0.0, 1.0, 0.0)


def picture(side: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """An object whose left half is red and whose right half is blue, on green; off the middle of the crop."""
    image = torch.tensor(BACKGROUND)[:, None, None].repeat(1, side, side)
    mask = torch.zeros(1, side, side)
    top, bottom, left, middle, right = side // 4, side // 2, side // 8, side // 2, 7 * side // 8
    mask[:, top:bottom, left:right] = 1
    image[:, top:bottom, left:middle] = torch.tensor(LEFT)[:, None, None]
    image[:, top:bottom, middle:right] = torch.tensor(RIGHT)[:, None, None]
    return image, mask


def voxels() -> torch.Tensor:
    """A bar along x: eight voxels of a grid of eight, and the same behind them."""
    return torch.tensor([(0, x, y, 4) for y in (4, 5) for x in range(8)], dtype=torch.int32)


# Seen from the front: object x (right) is camera -x (x grows to the left there), object z is up, object y is depth.
FRONT = torch.tensor([[-1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]])


def at(rotation: torch.Tensor, translation: list[float], scale: float = 1.0) -> RigidPose:
    return RigidPose(rotation.numpy(), np.array(translation), np.full(3, scale))


@pytest.mark.parametrize("distance", [2.0, 50.0])
@pytest.mark.parametrize("side", [64, 518])
def test_halves_get_their_colours_in_front_and_behind(distance: float, side: int) -> None:
    colors = colors_shown(voxels(), 8, at(FRONT, [0.3, -0.2, distance]), *picture(side)).colors
    expected = [2 * v - 1 for v in LEFT], [2 * v - 1 for v in RIGHT]
    for row, (_, x, _, _) in zip(colors, voxels().tolist(), strict=True):
        if x not in (3, 4):  # next to the border colours mix
            torch.testing.assert_close(row, torch.tensor(expected[x > 3]), atol=0.02, rtol=0)


def test_an_object_turned_around_swaps_them() -> None:
    around = torch.tensor([[-1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, 1.0]]) @ FRONT
    colors = colors_shown(voxels(), 8, at(around, [0.0, 0.0, 3.0]), *picture()).colors
    assert colors[0, 2] > 0.9  # the first voxel is now seen on the right, which is blue
    assert colors[7, 0] > 0.9


def test_place_and_size_of_the_pose_do_not_matter() -> None:
    picture_ = picture()
    near = colors_shown(voxels(), 8, at(FRONT, [0.0, 0.0, 100.0]), *picture_)
    moved = colors_shown(voxels(), 8, at(FRONT, [9.0, 4.0, 100.0], 1.5), *picture_)
    torch.testing.assert_close(near.colors, moved.colors, atol=0.05, rtol=0)


def test_a_pose_behind_the_camera_and_a_single_voxel_stay_finite() -> None:
    behind = colors_shown(voxels(), 8, at(FRONT, [0.0, 0.0, -0.2]), *picture())
    assert behind.colors.isfinite().all()
    assert behind.seen.any()
    single = colors_shown(voxels()[:1], 8, at(FRONT, [0.0, 0.0, 2.0]), *picture())
    assert single.colors.isfinite().all()
    assert single.seen.all()
    assert single.colors[0, 1] == pytest.approx(-1, abs=0.01)  # never the background


def test_weights_by_hand() -> None:
    """Two pixels, one voxel between them in one, half a pixel towards the first in the other case."""
    image, mask = torch.zeros(3, 32, 32), torch.zeros(1, 32, 32)
    mask[0, 10, 10:12] = 1
    image[0, 10, 10] = 1
    flat = torch.tensor([(0, x, 0, 0) for x in range(3)], dtype=torch.int32)
    colors = colors_shown(flat, 8, at(FRONT, [0.0, 0.0, 1e4]), image, mask).colors
    # The voxels are spread over the box of the mask: from its left edge (-0.5) over its middle to its right edge (1.5).
    for place, row in zip((-0.5, 0.5, 1.5), colors, strict=True):
        first, second = math.exp(-(place**2) / 2), math.exp(-((place - 1) ** 2) / 2)
        assert float(row[0]) == pytest.approx(2 * first / (first + second) - 1, abs=2e-3)


def test_only_the_front_row_is_seen() -> None:
    rows = torch.tensor([(0, x, y, 4) for y in (0, 2, 3, 7) for x in range(8)], dtype=torch.int32)
    seen = colors_shown(rows, 8, at(FRONT, [0.0, 0.0, 1e4]), *picture()).seen
    # Depth grows with y: two voxels behind the first one still count as seen.
    assert seen.view(4, 8).all(dim=1).tolist() == [True, True, False, False]
    assert not seen.view(4, 8)[2:, :-1].any()  # at the last edge a voxel may round into a pixel of its own


def test_colours_are_fitted_where_they_are_seen() -> None:
    # Two parts, red and blue, that the picture shows green and yellow; a hidden voxel of the first part follows.
    colors = torch.tensor([[1.0, -1, -1], [1, -1, -1], [-1, -1, 1], [-1, -1, 1], [1, -1, -1]])
    wanted = torch.tensor([[-1.0, 1, -1], [-1, 1, -1], [1, 1, -1], [1, 1, -1], [9, 9, 9]])
    seen = torch.tensor([True, True, True, True, False])
    fitted = matched_colors(colors, wanted, seen)
    torch.testing.assert_close(fitted[:4], wanted[:4], atol=0.03, rtol=0)
    assert torch.equal(fitted[4], fitted[0])


def test_fit_of_one_colour_by_hand() -> None:
    colors, wanted = torch.zeros(7, 3), torch.full((7, 3), 0.5)
    # Colours are zero, so only the shift works: (1 + TRUST_SHIFT) b = 0.5.
    fitted = matched_colors(colors, wanted, torch.ones(7, dtype=torch.bool))
    torch.testing.assert_close(fitted, torch.full((7, 3), 0.5 / (1 + TRUST_SHIFT)))
    # Colours +-1 in the first channel, wanted half as strong: (1 + TRUST) a = -0.5 there, no shift.
    colors = torch.tensor([[1.0, 0, 0], [-1, 0, 0]])
    fitted = matched_colors(colors, colors / 2, torch.ones(2, dtype=torch.bool))
    torch.testing.assert_close(fitted[0, 0], torch.tensor(1 - 0.5 / (1 + TRUST)))
    assert fitted[0, 1:].tolist() == [0, 0]


def test_right_colours_stay() -> None:
    colors = 0.8 * torch.rand(50, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(matched_colors(colors, colors, torch.ones(50, dtype=torch.bool)), colors)


def test_materials_are_brighter_than_their_picture() -> None:
    # Of 0..1: 0.2 becomes 0.3, and nothing more than white.
    torch.testing.assert_close(unshaded(torch.tensor([-0.6, -1.0, 0.9])), torch.tensor([-0.4, -1.0, 1.0]))
