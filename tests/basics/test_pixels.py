"""Masks, pictures and seeds that callers hand in."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastsam3d.basics.pixels import as_image, as_mask, as_seed, far_specks, inside_of
from fastsam3d.errors import UserError


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([True, False], [True, False]),
        ([0, 255], [False, True]),
        ([0.2, 0.9, 0.4], [False, True, False]),
        # Scores: half of the largest would be 4, and cut off what is above zero.
        ([-3.0, 1.0, 8.0], [False, True, True]),
        ([-9.0, -0.1, 0.5], [False, False, True]),
        ([-1, 0, 1], [False, False, True]),
        ([np.nan, 1.0, 0.2], [False, True, False]),
        ([-np.inf, np.inf, 2.0], [False, True, True]),
        ([np.inf, 0.1, 1.0], [True, False, True]),
        ([0.0, 0.0], [False, False]),
    ],
)
def test_numbers_of_a_mask(values, expected):
    assert inside_of(np.array(values)).tolist() == expected


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.uint8, torch.bool])
def test_masks_may_be_tensors(dtype):
    mask = torch.zeros(4, 5)
    mask[1:3, 2:4] = 1
    mask = mask.to(dtype)
    expected = np.zeros((4, 5), dtype=bool)
    expected[1:3, 2:4] = True
    assert (as_mask(mask, 4, 5) == expected).all()
    if dtype.is_floating_point:
        assert (as_mask(mask.requires_grad_(), 4, 5) == expected).all()


def test_pictures_may_be_tensors():
    picture = torch.arange(60, dtype=torch.uint8).reshape(4, 5, 3)
    assert (as_image(picture) == picture.numpy()).all()


def square(*more):
    mask = np.zeros((60, 80), dtype=bool)
    mask[20:40, 20:50] = True  # 600 pixels
    for rows, columns in more:
        mask[rows, columns] = True
    return mask


@pytest.mark.parametrize(
    ("more", "specks", "doubtful"),
    [
        ([], [], []),
        ([(0, 0)], [1], []),
        ([(59, 79)], [1], []),
        ([(0, 30), (59, 30)], [1, 1], []),
        ([(0, 79), (59, 0)], [1, 1], []),
        # Beside the object, or in line with it where the box does not grow: nothing is lost.
        ([(18, 30)], [], []),
        ([(slice(30, 31), 51)], [], []),
        ([(slice(0, 3), slice(77, 79))], [], [6]),
        # A part of a sensible size may belong to the object.
        ([(slice(0, 9), slice(70, 79))], [], []),
    ],
)
def test_specks_far_from_the_object_are_left_out(more, specks, doubtful):
    kept, found, told = far_specks(square(*more))
    assert (sorted(found), told) == (specks, doubtful)
    assert (kept == (square() if specks else square(*more))).all()


def test_a_mask_of_few_pixels_has_no_specks():
    mask = np.zeros((60, 80), dtype=bool)
    mask[[5, 50], [5, 70]] = True
    assert far_specks(mask)[0].sum() == 2 and far_specks(np.zeros((3, 3), dtype=bool))[1] == []


@pytest.mark.parametrize("seed", [0, 7, np.int64(7), np.uint32(2**32 - 1), torch.tensor(7), 2**32 - 1])
def test_whole_numbers_of_every_kind_are_seeds(seed):
    assert as_seed(seed) == int(seed) and type(as_seed(seed)) is int


@pytest.mark.parametrize("seed", [None, True, np.bool_(True), -1, 2**32, 2**63, 1.5, "7", np.float64(3)])
def test_what_is_no_seed_is_refused(seed):
    with pytest.raises(UserError, match="a whole number from 0 to 4294967295 is needed"):
        as_seed(seed)
