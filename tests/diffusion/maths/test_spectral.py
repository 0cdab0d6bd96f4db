from __future__ import annotations

import math

import pytest
import torch

from fastsam3d.diffusion.maths.spectral import fine_structure, high_frequency_ratio, occupancy_detail, picture_detail


def wave(cycles, size=64):
    return torch.cos(2 * math.pi * cycles * torch.arange(size) / size)[:, None].expand(size, size)


def test_ratio_by_hand():
    # One wave below and one above the cut-off of 8 / 64: amplitudes 3 and 1.
    assert high_frequency_ratio(3 * wave(4) + wave(16), 8 / 64) == pytest.approx(0.25, abs=1e-4)
    assert high_frequency_ratio(wave(4), 8 / 64) == pytest.approx(0.0, abs=1e-4)
    assert high_frequency_ratio(wave(8), 8 / 64) == pytest.approx(1.0, abs=1e-4)


def test_mean_has_no_say_in_two_and_three_dimensions():
    assert high_frequency_ratio(100 + wave(16), 8 / 64) == pytest.approx(1.0, abs=1e-3)
    cube = torch.zeros(16, 16, 16)
    cube[::2] = 1.0
    assert high_frequency_ratio(100 + cube, 0.25) == pytest.approx(1.0, abs=1e-3)
    assert high_frequency_ratio(torch.full((8, 8), 3.3), 0.1) == 0.0


def test_ratio_is_of_amplitude_not_energy():
    assert high_frequency_ratio(3 * wave(4) + wave(16), 8 / 64) == pytest.approx(
        1 / 4, abs=1e-4
    )  # energy: 1 / 10


def picture(kind, size=96):
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    grey = {
        "smooth": 128 + 60 * torch.sin(x / size * 3.0),
        "busy": 255.0 * ((x // 2 + y // 2) % 2),
        "flat": 0.0 * x + 90,
    }
    return grey[kind][..., None].expand(size, size, 3)


def disc(size=96, radius=40):
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    return (x - size / 2) ** 2 + (y - size / 2) ** 2 < radius**2


def test_busy_pictures_have_more_detail():
    smooth, busy = picture_detail(picture("smooth"), disc()), picture_detail(picture("busy"), disc())
    assert 0.0 < smooth < 0.5 < busy < 1.0


def test_flat_or_absent_objects_have_none():
    assert picture_detail(picture("flat"), disc()) == 0.0
    assert picture_detail(picture("busy"), torch.zeros(96, 96, dtype=torch.bool)) == 0.0


def test_background_has_no_say():
    image = picture("smooth").clone()
    other = image.clone()
    other[~disc()] = 255.0
    assert picture_detail(image, disc()) == pytest.approx(picture_detail(other, disc()), abs=1e-6)


def test_large_pictures_are_reduced_with_their_aspect():
    # The same disc at four times the size: fine detail of the large one is averaged away, not of the small.
    image = picture("smooth", 96).permute(2, 0, 1)[None]
    large = torch.nn.functional.interpolate(image, scale_factor=4, mode="bilinear")[0].permute(1, 2, 0)
    big = picture_detail(large, disc(384, 160))
    assert big == pytest.approx(picture_detail(picture("smooth"), disc()), abs=0.25)


def test_pixel_type_has_no_say():
    image = picture("busy")
    assert picture_detail(image.to(torch.uint8), disc()) == pytest.approx(
        picture_detail(image, disc()), abs=1e-6
    )


def test_occupancy_and_fine_structure():
    logits = torch.full((1, 1, 32, 32, 32), -3.0)
    logits[..., 8:24, 8:24, 8:24] = 2.0
    assert 0.0 < occupancy_detail(logits) < 1.0
    assert occupancy_detail(torch.full((1, 1, 8, 8, 8), -1.0)) == 0.0
    coords = torch.argwhere(logits[:, 0] > 0).int()
    score = fine_structure(logits, coords)
    assert score.shape == (16**3,)
    assert float(score.min()) == 0.0
    assert float(score.max()) == 1.0
    corner = score[(coords[:, 1:] == 8).all(1)].item()
    middle = score[(coords[:, 1:] == 15).all(1)].item()
    assert corner > middle
