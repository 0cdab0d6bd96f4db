"""Shards, their loader and the batches made of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastsam3d.errors import UserError
from fastsam3d.procedural import HELD_OUT_SEED
from fastsam3d.procedural.objects import training_object, voxel_centers
from fastsam3d.sam3d.pipeline.pose import rotation_6d_to_matrix
from fastsam3d.training.data import dataset as module
from fastsam3d.training.data.condition_batch import build_condition_batch
from fastsam3d.training.data.dataset import ProceduralDataset, generate
from fastsam3d.training.data.shards import generate_shard, shard_path

INPUTS = ("image", "rgb_image", "mask", "rgb_image_mask", "pointmap", "rgb_pointmap")


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> ProceduralDataset:
    directory = tmp_path_factory.mktemp("shards")
    generate_shard(shard_path(directory, 0), 0, 5, views=2)
    generate_shard(shard_path(directory, 40), 40, 3, views=2)
    return ProceduralDataset(directory)


@pytest.fixture(scope="module")
def batch(stored) -> dict[str, torch.Tensor]:
    return build_condition_batch(stored, torch.arange(8).repeat(4), torch.Generator().manual_seed(0))


def test_rows_run_over_shards_in_seed_order(stored) -> None:
    assert len(stored) == 8 and stored.views == 2
    assert stored.array("seed", torch.tensor([7, 0, 5])).tolist() == [42, 0, 40]


def test_stored_distances_are_those_of_the_object(stored) -> None:
    expected = training_object(41).sdf(voxel_centers(32)).clamp(-0.2, 0.2).reshape(32, 32, 32)
    assert torch.allclose(stored.to_sdf(stored.sdf_bytes()[6]), expected, atol=0.5 * 0.2 / 127 + 1e-6)


def test_sampled_distances_are_objects_or_their_mirror_images(stored) -> None:
    sampled = stored.sample_sdf(12, torch.Generator().manual_seed(0))
    known = stored.to_sdf(stored.sdf_bytes())
    both = torch.cat([known, known.flip(1)])
    assert all((both == sdf).flatten(1).all(1).any() for sdf in sampled)


def test_inputs_have_the_promised_shapes_and_ranges(batch) -> None:
    for name in INPUTS:
        assert batch[name].shape == (32, 1 if "mask" in name else 3, 64, 64), name
        assert batch[name].dtype == torch.float32
    for name in ("image", "rgb_image"):
        assert batch[name].min() >= 0 and batch[name].max() <= 1
    for name in ("mask", "rgb_image_mask"):
        assert set(batch[name].unique().tolist()) == {0.0, 1.0}
    unknown = batch["pointmap"].isnan().flatten(1).all(1)
    assert 0 < unknown.sum() < 20
    assert torch.equal(unknown, batch["rgb_pointmap"].isnan().flatten(1).all(1))


def test_the_crop_is_the_box_of_the_mask_times_the_factor(batch) -> None:
    for mask in batch["mask"]:
        rows, columns = mask[0].any(1).nonzero(), mask[0].any(0).nonzero()
        extent = max(int(rows.max() - rows.min()), int(columns.max() - columns.min())) + 1
        assert extent == pytest.approx(64 / 1.2, abs=3)


def test_targets_take_the_points_of_both_maps_onto_the_object(stored, batch) -> None:
    """The decoded pose, applied backwards to the inputs, must land on the surface, mirrored samples included."""
    assert 0 < batch["mirrored"].sum() < 32
    known_maps = 0
    for row in range(32):
        unit, shift = batch["pointmap_scale"][row], batch["pointmap_shift"][row]
        rotation = rotation_6d_to_matrix(batch["rotation6d"][row])
        scale = torch.exp(batch["scale"][row]).mean() * unit
        translation = batch["translation"][row] * unit + shift
        assert float(torch.linalg.det(rotation)) == pytest.approx(1, abs=1e-5)
        distance = float(torch.exp(batch["translation_scale"][row]) * unit)
        assert distance == pytest.approx(float(translation.norm()), rel=1e-4)
        item = training_object(int(stored.array("seed", batch["object"][row : row + 1])))
        for points, mask in (("pointmap", "mask"), ("rgb_pointmap", "rgb_image_mask")):
            known = batch[points][row][:, batch[mask][row, 0] > 0.5].t()
            known = known[known.isfinite().all(1)]
            local = ((known * unit + shift) - translation) @ rotation.t() / scale
            if batch["mirrored"][row]:
                local = local * torch.tensor([-1.0, 1, 1])
            if len(local):
                known_maps += 1
                assert item.sdf(local).abs().max() < 0.015
    assert known_maps > 32  # of 64; a fifth of the samples has none


def test_the_mirrored_grid_belongs_to_the_mirrored_view(stored, batch) -> None:
    for row in range(32):
        sdf = stored.to_sdf(stored.sdf_bytes()[batch["object"][row]])
        assert torch.equal(batch["sdf"][row], sdf.flip(0) if batch["mirrored"][row] else sdf)


def test_moments_are_those_of_the_crop(batch) -> None:
    for row in (~batch["pointmap"].isnan().flatten(1).all(1)).nonzero().flatten().tolist():
        known = batch["pointmap"][row][:, batch["mask"][row, 0] > 0.5]
        assert torch.nanmedian(known, dim=1).values.abs().max() < 0.1  # pixels beyond the picture are missing here
        assert float(torch.nanmedian(known.abs().amax(0))) == pytest.approx(1, abs=0.1)


def test_scene_factor_enlarges_the_unit_only(stored) -> None:
    plain = build_condition_batch(stored, torch.arange(8), torch.Generator().manual_seed(3))
    larger = build_condition_batch(stored, torch.arange(8), torch.Generator().manual_seed(3), scene_factor=1.0)
    ratio = larger["pointmap_scale"] / plain["pointmap_scale"]
    assert (ratio >= 0.999).all() and (ratio <= np.exp(1.6) + 1e-3).all() and ratio.max() > 1.2
    assert torch.allclose(larger["translation"] * ratio, plain["translation"], atol=1e-5)
    assert torch.equal(larger["image"], plain["image"])


def test_generation_resumes_and_keeps_what_exists(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(module, "SHARD_SIZE", 2)
    kept = shard_path(tmp_path, 2)
    kept.write_bytes(b"as it was")
    generate(tmp_path, 5, first_seed=0, views=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"objects_{start:010d}.npz" for start in (0, 2, 4)]
    assert kept.read_bytes() == b"as it was"
    with np.load(shard_path(tmp_path, 4)) as arrays:
        assert arrays["seed"].tolist() == [4]


def test_errors_of_the_user(tmp_path) -> None:
    with pytest.raises(UserError, match="no shards in"):
        ProceduralDataset(tmp_path)
    with pytest.raises(UserError, match="held-out"):
        generate(tmp_path, 10, first_seed=HELD_OUT_SEED - 5)
