"""Training pictures with the looks of photographs."""

from __future__ import annotations

import pytest
import torch

from fastsam3d.procedural import HELD_OUT_SEED
from fastsam3d.training.data.condition_batch import build_condition_batch
from fastsam3d.training.data.dataset import ProceduralDataset, generate
from fastsam3d.training.data.photographic import (
    Draws,
    Exposure,
    Neighbour,
    PhotographicBackground,
    _normals,
    photographic_surface,
    ragged_mask,
)

COUNT, SIDE = 6, 32


def draws(count: int = COUNT, seed: int = 0) -> Draws:
    return Draws(count, torch.Generator().manual_seed(seed))


def plane(slope: float = 0.0) -> torch.Tensor:
    """Camera points of a plane over all pixels, x to the left and y up; `slope` turns it about the vertical axis."""
    steps = torch.linspace(-0.4, 0.4, SIDE)
    x, y = -steps[None, :].expand(SIDE, -1), -steps[:, None].expand(-1, SIDE)
    return torch.stack([x, y, slope * x]).expand(COUNT, 3, SIDE, SIDE)


def test_normals_of_a_plane() -> None:
    known = torch.ones(COUNT, 1, SIDE, SIDE, dtype=torch.bool)
    inner = _normals(plane(), known)[:, :, 2:-2, 2:-2]
    torch.testing.assert_close(inner, torch.tensor([0.0, 0.0, -1.0])[None, :, None, None].expand_as(inner))
    # z = x: the normal towards the camera (-z) is (1, 0, -1) / sqrt(2).
    turned = _normals(plane(1.0), known)[0, :, SIDE // 2, SIDE // 2]
    torch.testing.assert_close(turned, torch.tensor([0.5**0.5, 0.0, -(0.5**0.5)]))


def test_a_painted_surface_has_colours_and_patterns_in_range() -> None:
    color = torch.full((COUNT, 3, SIDE, SIDE), 0.5)
    points = plane().clone()
    points[:, :, :4] = torch.nan
    painted = photographic_surface(color, points, torch.eye(3).expand(COUNT, 3, 3), draws())
    assert painted.isfinite().all() and painted.min() >= 0 and painted.max() <= 1
    assert painted[..., 6:, :].flatten(2).std(dim=2).amax() > 0.05  # some have a pattern


def test_a_background_is_one_picture_over_the_whole_frame() -> None:
    background = PhotographicBackground(lambda uv: torch.full((COUNT, 3, *uv.shape[1:3]), 0.5), draws())
    steps = (torch.arange(SIDE) + 0.5) / SIDE
    frame = torch.stack([steps[None, :].expand(SIDE, -1), steps[:, None].expand(-1, SIDE)], dim=-1)
    whole = background(frame.expand(COUNT, SIDE, SIDE, 2))
    part = background(frame[8:16, 4:12].expand(COUNT, 8, 8, 2))
    torch.testing.assert_close(part, whole[:, :, 8:16, 4:12])
    assert whole.flatten(2).std(dim=2).amax() > 0.05


def test_a_neighbour_is_the_next_sample_of_the_batch_in_its_own_window() -> None:
    color = torch.arange(COUNT).float()[:, None, None, None].expand(COUNT, 3, SIDE, SIDE) / COUNT
    window = torch.tensor([[0.0, 0.0, 1.0]]).expand(COUNT, 3)
    layers = torch.cat([color, torch.ones(COUNT, 1, SIDE, SIDE)], dim=1).roll(1, dims=0)
    place = torch.tensor([[0.25, 0.25, 0.5]]).expand(COUNT, 3)
    neighbour = Neighbour(layers, place, torch.ones(COUNT, 1, 1, 1))
    steps = (torch.arange(8) + 0.5) / 8
    frame = torch.stack([steps[None, :].expand(8, -1), steps[:, None].expand(-1, 8)], dim=-1).expand(COUNT, 8, 8, 2)
    image, cover = neighbour.over(torch.ones(COUNT, 3, 8, 8), frame)
    assert cover[0, 0].sum() == 16  # the middle half of the frame, each way
    torch.testing.assert_close(image[3, :, 4, 4], torch.full((3,), 2 / COUNT))
    torch.testing.assert_close(image[3, :, 0, 0], torch.ones(3))
    drawn = Neighbour.beside(color, torch.ones(COUNT, 1, SIDE, SIDE), window, draws(), 1.0, (0.3, 1.0))
    middle = drawn.window[:, :2] + drawn.window[:, 2:] / 2
    distance = (middle - 0.5).norm(dim=1)
    assert (distance >= 0.3).all() and (distance <= 1.0).all()


def test_ragged_masks_stay_near_the_true_ones() -> None:
    alpha = torch.zeros(40, 1, SIDE, SIDE)
    alpha[:, :, 8:24, 8:24] = 1
    ragged = ragged_mask(alpha, draws(40))
    changed = (ragged != alpha).flatten(1).any(dim=1)
    assert 8 < changed.sum() < 32  # about half of them
    overlap = (ragged * alpha).sum(dim=(1, 2, 3)) / torch.maximum(ragged, alpha).sum(dim=(1, 2, 3))
    assert overlap.min() > 0.55
    far = torch.ones_like(alpha)
    far[:, :, 5:27, 5:27] = 0
    assert (ragged * far).sum() == 0  # at most two pixels outwards


def test_exposure_leaves_the_others_alone_and_gives_crop_and_frame_the_same() -> None:
    chosen = torch.tensor([1.0, 0.0, 1.0, 0.0, 1.0, 0.0])[:, None, None, None]
    exposure = Exposure(draws(), chosen)
    exposure.noise = torch.zeros_like(exposure.noise)
    image = torch.rand(COUNT, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    first, second = exposure(image), exposure(image)
    assert torch.equal(first, second)
    assert torch.equal(first[1::2], image[1::2]) and not torch.equal(first[::2], image[::2])


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> ProceduralDataset:
    folder = tmp_path_factory.mktemp("photographic")
    generate(folder, 12, first_seed=HELD_OUT_SEED - 5000)
    return ProceduralDataset(folder)


def test_a_batch_with_photographs(dataset: ProceduralDataset) -> None:
    def batch(share: float) -> dict[str, torch.Tensor]:
        return build_condition_batch(dataset, None, torch.Generator().manual_seed(3), count=48, photographic=share)

    photographs, plain = batch(1.0), batch(0.0)
    for name, values in photographs.items():
        assert values.shape == plain[name].shape
        if values.is_floating_point() and "pointmap" not in name[:12]:
            assert values.isfinite().all(), name
    for name in ("image", "rgb_image"):
        assert photographs[name].min() >= 0 and photographs[name].max() <= 1
        assert photographs[name].std() > 0.15
    missing = photographs["rgb_pointmap"].isnan().flatten(1).all(dim=1).float().mean()
    assert 0.4 < missing < 0.8
    assert plain["rgb_pointmap"].isnan().flatten(1).all(dim=1).float().mean() < 0.4
    overlap = (photographs["mask"] * plain["mask"]).sum() / plain["mask"].sum()
    assert overlap > 0.3 and (photographs["mask"].flatten(1).sum(dim=1) > 0).all()
