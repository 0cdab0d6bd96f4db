"""Preprocessing, voxel lists and the pose against recordings of the genuine code (tests/data/parity/README.md)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from parity_rule import uniform, voxels
from safetensors.torch import load_file
from torch import Tensor

from fastsam3d.modules.voxels import downsample_sparse_structure, prune_sparse_structure
from fastsam3d.sam3d.checkpoints.loading import model_config
from fastsam3d.sam3d.pipeline.pose import decode_pose
from fastsam3d.sam3d.pipeline.preprocessing import prepare_condition

DATA = Path(__file__).parents[2] / "data" / "parity"
SIZE = 40
"""Side of the images; 518 in the official model."""


def picture(case: str) -> tuple[Tensor, Tensor, Tensor]:
    """A noisy picture uint8 `[H, W, 3]`, a mask whose crop reaches beyond the border, and a point map with holes."""
    height, width = {"wide": (70, 90), "tall": (97, 61)}[case]
    rgb = ((uniform(f"{case}/rgb", height, width, 3) + 1) * 127.5).to(torch.uint8)
    rows, columns = torch.arange(height)[:, None], torch.arange(width)[None, :]
    row, column, radius = {"wide": (30, 14, 12), "tall": (70, 40, 19)}[case]
    mask = (rows - row) ** 2 + ((columns - column) * 0.8) ** 2 < radius**2
    points = torch.stack(
        [
            (1 - 2 * columns / width).expand(height, -1),
            (1 - 2 * rows / height).expand(-1, width),
            2 + 0.01 * (rows + columns),
        ],
        dim=-1,
    )
    points = points + 0.1 * uniform(f"{case}/points", height, width, 3)
    points[: height // 4] = torch.nan
    points[row : row + 3, column : column + 5] = torch.nan
    return rgb, mask, points


@pytest.mark.parametrize("case", ["wide", "tall"])
def test_condition_inputs(case: str) -> None:
    rgb, mask, points = picture(case)
    ours = prepare_condition(rgb.numpy(), mask.numpy(), points.numpy(), image_size=SIZE, scale_over="all")
    genuine = {
        name.removeprefix(f"{case}."): value
        for name, value in load_file(DATA / "preprocessing.safetensors").items()
        if name.startswith(case)
    }
    assert set(genuine) == set(ours)
    for name, value in genuine.items():
        found = ours[name][0]
        assert found.shape == value.shape, name
        assert torch.equal(found.isnan(), value.isnan()), name
        difference = (found - value).nan_to_num().abs().max()
        assert difference <= 1e-5 * value.nan_to_num().abs().max(), (name, difference)


def test_voxel_lists() -> None:
    genuine = load_file(DATA / "voxels.safetensors")
    coords = voxels("prune", 3000, 24)
    assert torch.equal(prune_sparse_structure(coords), genuine["pruned"])
    halved, factor = downsample_sparse_structure(coords, max_coords=2000)
    assert factor == 2
    assert torch.equal(halved, genuine["halved"])


def test_pose() -> None:
    latents = {
        "6drotation_normalized": 1.5 * uniform("pose/r", 1, 1, 6),
        "scale": 0.5 * uniform("pose/s", 1, 1, 3),
        "translation": uniform("pose/t", 1, 1, 3),
        "translation_scale": uniform("pose/ts", 1, 1, 1),
    }
    scale, shift = torch.full((1, 3), 1.7), torch.tensor([[0.2, -0.1, 2.5]])
    pose = decode_pose(latents, scale, shift, model_config("sam3d").pose)
    genuine = load_file(DATA / "pose.safetensors")
    torch.testing.assert_close(pose.translation, genuine["translation"][0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(pose.scale, genuine["scale"][0], rtol=1e-5, atol=1e-5)
    # A quaternion and its negative are one rotation.
    assert (pose.rotation @ genuine["rotation"][0]).abs().item() == pytest.approx(1, abs=1e-6)
