"""Data made in batches, and every stage of the training on it, at toy size."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
import torch

from fastsam3d.procedural.batch import TableBatch, padded_tables
from fastsam3d.procedural.objects import make_object, training_object
from fastsam3d.training import options
from fastsam3d.training.data import data_source, device_dataset
from fastsam3d.training.data.condition_batch import build_condition_batch
from fastsam3d.training.data.device_dataset import DeviceDataset
from fastsam3d.training.loop import TrainingLoop
from fastsam3d.training.optimization import cosine_factor, load_checkpoint
from fastsam3d.training.sparse_structure import flow as sparse_structure_flow
from fastsam3d.training.sparse_structure import vae as sparse_structure_vae
from fastsam3d.training.structured_latent import flow as structured_latent_flow
from fastsam3d.training.structured_latent import vae as structured_latent_vae
from fastsam3d.training.structured_latent.batch import PlacementBatch, voxel_samples
from fastsam3d.training.structured_latent.data import (
    Placement,
    latent_statistics,
    object_sample,
    occupied_voxels,
    split_interior,
    voxel_sample,
)
from fastsam3d.training.structured_latent.flow import repeated

SEEDS = (5, 6, 9)


@pytest.fixture(scope="module")
def dataset() -> DeviceDataset:
    return DeviceDataset(12, "cpu", batch=5)


def tables() -> TableBatch:
    return TableBatch.from_tables(*padded_tables([make_object(seed).table for seed in SEEDS], 48))


def test_voxel_samples_are_those_of_single_objects() -> None:
    mirrored = torch.tensor([False, True, False])
    batch = voxel_samples(tables(), 32, PlacementBatch.plain(mirrored))
    for row, seed in enumerate(SEEDS):
        own = batch.coords[:, 0] == row
        if row == 1:
            item, placement = make_object(seed), Placement(mirrored=True)
            shell, interior = split_interior(occupied_voxels(lambda p: item.sdf(placement.into_object(p)), 32))  # noqa: B023
            plain = voxel_sample(item, shell, interior, 32, placement)
        else:
            plain = object_sample(seed, 32)
        assert torch.equal(batch.coords[own][:, 1:], plain.coords[:, 1:])
        assert torch.equal(batch.interior[batch.interior[:, 0] == row][:, 1:], plain.interior[:, 1:])
        torch.testing.assert_close(batch.lattice[own], plain.lattice, atol=1e-4, rtol=0)
        assert (batch.near[own] == plain.near).float().mean() > 0.999
        assert (batch.colors[own] - plain.colors).abs().amax(-1).gt(1e-3).float().mean() < 0.005
        # Lattice differences against differences at a quarter of a voxel: equal away from edges.
        agreement = (batch.normals[own] * plain.normals).sum(-1)[plain.near & batch.near[own]]
        assert agreement.median() > 0.99


def test_smaller_objects_and_dilation() -> None:
    plain = PlacementBatch.plain(torch.zeros(3, dtype=torch.bool))
    half = PlacementBatch(0.5 * plain.scale, plain.mirrored, plain.dilation)
    thick = PlacementBatch(plain.scale, plain.mirrored, plain.dilation + 1)
    sizes = []
    for placement in (half, plain, thick):
        sample = voxel_samples(tables(), 32, placement)
        sizes.append(len(sample.coords) + len(sample.interior))
    assert sizes[0] < 0.5 * sizes[1] < 0.5 * sizes[2]
    drawn = PlacementBatch.draw(4000, 4, torch.Generator().manual_seed(0))
    assert float((drawn.scale < 1).float().mean()) == pytest.approx(0.25, abs=0.03)
    assert float((drawn.dilation > 1).float().mean()) == pytest.approx(0.10, abs=0.02)


def test_repeats_keep_objects_together() -> None:
    coords = torch.tensor([[0, 1, 1, 1], [0, 2, 2, 2], [1, 3, 3, 3]], dtype=torch.int32)
    voxels, values = repeated(coords, torch.tensor([[1.0], [2.0], [3.0]]), 2)
    assert voxels[:, 0].tolist() == [0, 0, 1, 1, 2, 3]
    assert values[:, 0].tolist() == [1, 2, 1, 2, 3, 3]


def test_condition_batches_hold_the_pose_of_the_stored_view(dataset: DeviceDataset) -> None:
    generator = torch.Generator().manual_seed(0)
    batch = build_condition_batch(dataset, torch.arange(12), generator)
    assert batch["image"].shape == (12, 3, 64, 64) and 0.05 < float(batch["mask"].mean()) < 0.8
    # Masked points, moved by the pose target, lie on the object: |sdf| is small there.
    rotation = batch["rotation6d"].view(12, 2, 3).transpose(1, 2)
    third = torch.linalg.cross(rotation[..., 0], rotation[..., 1])
    matrix = torch.cat([rotation, third[..., None]], dim=-1)
    tables = dataset.table_batch(slice(0, 12))
    points = batch["pointmap"].flatten(2).transpose(1, 2)
    known = torch.isfinite(points).all(-1) & (batch["mask"].flatten(1) > 0.5)
    local = (torch.nan_to_num(points) - batch["translation"][:, None]) @ matrix.transpose(1, 2)
    local = local / batch["scale"][:, None, :1].exp()
    local[..., 0] *= torch.where(batch["mirrored"], -1.0, 1.0)[:, None]
    distance = tables.sdf(local)[known].abs()
    assert len(distance) > 1000 and float(distance.median()) < 5e-3


def test_every_stage_trains_on_data_made_in_memory(
    tmp_path: Path, dataset: DeviceDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_source, "_on_device", lambda *_: dataset)
    # Statistics and evaluation of a few objects and views instead of hundreds and thousands.
    vae, flow = structured_latent_vae, structured_latent_flow
    monkeypatch.setattr(vae, "latent_statistics", partial(vae.latent_statistics, count=2))
    monkeypatch.setattr(vae, "evaluate", partial(vae.evaluate, count=1))
    monkeypatch.setattr(flow, "LatentSource", partial(flow.LatentSource, count=3))

    def few_views(*words: object, count: int, photographic: float = 0.0) -> dict[str, torch.Tensor]:
        return build_condition_batch(*words, count=min(count, 16), photographic=photographic)

    monkeypatch.setattr(sparse_structure_flow, "build_condition_batch", few_views)
    runs = {name: {"output": str(tmp_path / name), "steps": 2} for name in "abcd"}
    sparse_structure_vae.train(options.SparseStructureVaeOptions(batch=2, **runs["a"]))
    encoder = str(tmp_path / "a" / "checkpoint.pt")
    sparse_structure_flow.train(options.SparseStructureFlowOptions(vae=encoder, images=2, **runs["b"]))
    structured_latent_vae.train(options.StructuredLatentVaeOptions(batch=2, **runs["c"]))
    structured_latent_flow.train(options.StructuredLatentFlowOptions(images=2, **runs["d"]))
    for run in "abcd":
        state = load_checkpoint(tmp_path / run / "checkpoint.pt")
        assert state is not None and state["step"] == 2
    lines = (tmp_path / "c" / "losses.jsonl").read_text().splitlines()
    assert "held_out_sdf" in json.loads(lines[-1])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "settings"),
    [
        (sparse_structure_vae, options.SparseStructureVaeOptions),
        (structured_latent_vae, options.StructuredLatentVaeOptions),
    ],
)
def test_a_stage_that_is_interrupted_ends_as_if_it_had_not_been(
    stage: ModuleType, settings: type, tmp_path: Path, dataset: DeviceDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_source, "_on_device", lambda *_: dataset)
    monkeypatch.setattr(structured_latent_vae, "latent_statistics", partial(latent_statistics, count=2))
    monkeypatch.setattr(structured_latent_vae, "evaluate", lambda *_: {})
    monkeypatch.setattr(stage, "TrainingLoop", partial(TrainingLoop, save_seconds=-1.0))

    def run(name: str) -> dict[str, torch.Tensor]:
        stage.train(settings(output=str(tmp_path / name), batch=1, steps=3))
        state = load_checkpoint(tmp_path / name / "checkpoint.pt")
        assert state is not None and state["step"] == 3
        return state["model"]

    def stopped(progress: float, warmup: float) -> float:
        if progress > 0.5:
            raise KeyboardInterrupt
        return cosine_factor(progress, warmup)

    whole = run("whole")
    with monkeypatch.context() as interruption:
        interruption.setattr(stage, "cosine_factor", stopped)
        with pytest.raises(KeyboardInterrupt):
            run("parts")
    interrupted = load_checkpoint(tmp_path / "parts" / "checkpoint.pt")
    assert interrupted is not None and interrupted["step"] == 2
    resumed = run("parts")
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    assert not all(torch.equal(value, interrupted["model"][name]) for name, value in whole.items())


def test_tables_are_the_same_from_one_process_or_two() -> None:
    one, parts = device_dataset.all_tables(3, 5, 1)
    assert parts.tolist() == [len(training_object(seed).table) for seed in range(3, 8)]
    assert torch.equal(torch.from_numpy(one[1, : parts[1]]), torch.from_numpy(training_object(4).table))
