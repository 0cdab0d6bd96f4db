"""The pipeline's own work: voxels, noise, order of stages, randomness and progress; no trained network."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from fastsam3d.errors import UserError
from fastsam3d.sam3d.pipeline.occupancy import occupied_voxels
from fastsam3d.sam3d.pipeline.pipeline import Pipeline
from fastsam3d.sam3d.pipeline.timing import STAGES


def test_a_run_gives_everything_and_times_every_stage(pipeline: Pipeline, picture) -> None:
    result = pipeline.run(*picture, seed=3)
    assert result.mesh.vertices.shape[1] == 3
    assert result.mesh.vertex_colors.shape == result.mesh.vertices.shape
    assert result.mesh.faces.max() < len(result.mesh.vertices)
    assert result.feats.shape == (len(result.structure.coords), 8)
    assert result.pose.rotation.norm().item() == pytest.approx(1.0)
    assert list(result.stage_seconds) == [*STAGES[:8], "picture_colors"]
    assert result.seconds == pytest.approx(sum(result.stage_seconds.values()))


def test_voxels_are_the_shell_and_the_rest_is_known_to_be_inside(pipeline: Pipeline, picture) -> None:
    structure = pipeline.run(*picture).structure
    occupied = structure.logits[0, 0] > 0
    shell, inside = (
        {tuple(row) for row in coords[:, 1:].tolist()} for coords in (structure.coords, structure.interior_coords)
    )
    assert structure.coords.dtype == torch.int32
    assert not shell & inside
    assert shell | inside == {tuple(row) for row in occupied.nonzero().tolist()}
    assert (16, 16, 16) in inside
    for x, y, z in inside:
        assert occupied[x - 1 : x + 2, y - 1 : y + 2, z - 1 : z + 2].all()


def test_seeds_repeat_and_differ_and_leave_global_numbers_alone(pipeline: Pipeline, picture) -> None:
    state = torch.get_rng_state()
    first, again, other = (pipeline.run(*picture, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(first.mesh.vertices, again.mesh.vertices)
    assert torch.equal(first.pose.rotation, again.pose.rotation)
    assert not torch.equal(first.feats, other.feats)


def test_noise_belongs_to_a_place(pipeline: Pipeline, picture, monkeypatch) -> None:
    seen = []
    monkeypatch.setattr(
        pipeline.models["slat_generator"],
        "sample",
        lambda noise, *args, **kwargs: seen.append(noise[0]) or noise,
    )
    structure = pipeline.run(*picture).structure
    half = replace(structure, coords=structure.coords[1::2])
    condition = torch.zeros(1, 1, 1)
    full_feats = pipeline.sample_slat(condition, structure, torch.Generator().manual_seed(5))
    half_feats = pipeline.sample_slat(condition, half, torch.Generator().manual_seed(5))
    assert torch.equal(full_feats[1::2], half_feats)
    grid = torch.randn((32, 32, 32, 8), generator=torch.Generator().manual_seed(5))
    x, y, z = structure.coords[7, 1:].tolist()
    assert torch.equal(seen[1][7], pipeline.config.slat_sampler.noise_scale * grid[x, y, z])


def test_first_stage_noise_is_drawn_in_sorted_order(pipeline: Pipeline, monkeypatch) -> None:
    monkeypatch.setattr(pipeline.models["ss_generator"], "sample", lambda noise, *args, **kwargs: noise)
    structure = pipeline.sample_sparse_structure(torch.zeros(1, 1, 1), torch.Generator().manual_seed(4))
    generator = torch.Generator().manual_seed(4)
    for name in ("6drotation_normalized", "scale", "shape", "translation", "translation_scale"):
        size = pipeline.config.ss_sampler.noise_scale
        expected = size * torch.randn(structure.latents[name].shape, generator=generator)
        assert torch.equal(structure.latents[name], expected)


def test_latents_are_denormalised(pipeline: Pipeline, picture, monkeypatch) -> None:
    sampler = pipeline.models["slat_generator"]
    monkeypatch.setattr(sampler, "sample", lambda noise, *args, **kwargs: torch.ones_like(noise))
    structure = pipeline.run(*picture).structure
    pipeline.config = replace(pipeline.config, slat_mean=tuple(range(8)), slat_std=(2.0,) * 8)
    feats = pipeline.sample_slat(torch.zeros(1, 1, 1), structure, torch.Generator())
    assert feats[0].tolist() == [2.0 + k for k in range(8)]


def test_a_halved_grid_doubles_the_scale(pipeline: Pipeline, picture) -> None:
    plain = pipeline.run(*picture)
    pipeline.config = replace(pipeline.config, max_voxels=len(plain.structure.coords) - 1)
    halved = pipeline.run(*picture)
    assert halved.structure.downsample_factor == 2
    assert len(halved.structure.interior_coords) == 0
    assert torch.allclose(halved.pose.scale, 2 * plain.pose.scale)


def test_without_an_occupied_voxel_the_likeliest_are_taken(caplog) -> None:
    logits = -torch.arange(1.0, 513.0).reshape(1, 1, 8, 8, 8)
    coords = occupied_voxels(logits)
    assert coords.tolist() == [[0, 0, 0, z] for z in range(8)]
    assert "no voxel is occupied" in caplog.text
    with pytest.raises(UserError, match="not finite"):
        occupied_voxels(logits * torch.nan)


def test_stage_methods_are_looked_up_on_the_instance(pipeline: Pipeline, picture, monkeypatch) -> None:
    called = []

    def watched(name: str):
        original = getattr(pipeline, name)
        return lambda *args, **kwargs: called.append(name) or original(*args, **kwargs)

    stages = (
        "preprocess",
        "embed_condition",
        "sample_sparse_structure",
        "decode_pose",
        "sample_slat",
        "decode_slat",
    )
    for name in stages:
        monkeypatch.setattr(pipeline, name, watched(name))
    pipeline.run(*picture)
    assert called == [
        "preprocess",
        "embed_condition",
        "sample_sparse_structure",
        "decode_pose",
        "embed_condition",
        "sample_slat",
        "decode_slat",
    ]


def test_progress_reports_stages_and_steps(pipeline: Pipeline, picture) -> None:
    reports: list[tuple[str, int, int]] = []
    pipeline.run(*picture, progress=lambda *report: reports.append(report))
    assert [r[0] for r in reports if r[1:] == (0, 1)] == [*STAGES[:8], "picture_colors"]
    assert [r[1:] for r in reports if r[0] == "sparse_structure"] == [(0, 1), (1, 2), (2, 2), (1, 1)]


def test_formats_that_the_model_lacks_are_refused(pipeline: Pipeline, picture) -> None:
    with pytest.raises(UserError, match="no decoder for the format 'gaussian'"):
        pipeline.run(*picture, formats=("mesh", "gaussian"))
    with pytest.raises(UserError, match="Unknown format"):
        pipeline.run(*picture, formats=("voxels",))


@pytest.mark.parametrize(
    ("seed", "seeds"), [(np.int64(3), [3, 3]), (torch.tensor(4), [4, 4]), ([5, np.int32(6)], [5, 6])]
)
def test_a_batch_takes_seeds_of_every_kind(
    pipeline: Pipeline, picture, monkeypatch: pytest.MonkeyPatch, seed: object, seeds: list[int]
) -> None:
    class Reached(Exception):
        pass

    def sampled(_condition: torch.Tensor, generators: list[torch.Generator]) -> None:
        assert [generator.initial_seed() for generator in generators] == seeds
        raise Reached

    monkeypatch.setattr(pipeline, "sample_structure_latents", sampled)
    image, mask = picture
    with pytest.raises(Reached):
        pipeline.sample_structures(image, [mask, mask], seed=seed)
