"""Samples and losses of the structured-latent training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fastsam3d.modules.flexicubes import CHANNELS, extract_surface
from fastsam3d.modules.sparse_tensor import SparseIndex
from fastsam3d.procedural import HELD_OUT_SEED
from fastsam3d.sam3d.models.config import ModelConfig, load_model_config
from fastsam3d.training.structured_latent.autoencoder import (
    StructuredLatentAutoencoder,
    autoencoder_loss,
    reconstruction_losses,
)
from fastsam3d.training.structured_latent.data import (
    Placement,
    VoxelSample,
    corner_columns,
    draw_sample,
    object_sample,
    occupied_voxels,
)
from fastsam3d.training.structured_latent.flow import (
    StructuredLatentStage,
    begin_by_removing_noise,
    flow_loss,
    sample_latent_times,
)

RESOLUTION = 32


@pytest.fixture(scope="module")
def sample() -> VoxelSample:
    return object_sample(5, RESOLUTION)


@pytest.fixture(scope="module")
def config() -> ModelConfig:
    path = Path(__file__).parents[2] / "configs" / "model" / "mini.yaml"
    config = load_model_config(path)
    decoder = replace(
        config.slat_decoder_mesh, model_channels=16, num_blocks=1, num_heads=2, upsample_channels=(8,)
    )
    generator = replace(
        config.slat_generator,
        model_channels=24,
        num_blocks=1,
        num_heads=2,
        io_channels=(16,),
        cond_channels=24,
    )
    image = replace(config.slat_condition_embedder.image, channels=24, depth=1, heads=2)
    embedder = replace(
        config.slat_condition_embedder, channels=24, hidden_multiple=8, image=image, mask=image
    )
    return replace(
        config, slat_decoder_mesh=decoder, slat_generator=generator, slat_condition_embedder=embedder
    )


def perfect_output(sample: VoxelSample) -> torch.Tensor:
    columns = corner_columns().flatten()
    output = torch.zeros(8 * len(sample.coords), CHANNELS)
    output[:, :8] = sample.lattice[:, columns].reshape(-1, 8) + 1 / 64
    codes = torch.cat([sample.colors, (sample.normals + 1) / 2], dim=-1)[:, columns].reshape(-1, 48)
    output[:, 53:] = torch.logit(codes.clamp(1e-6, 1 - 1e-6))
    return output


def test_perfect_output_has_no_loss_and_gives_the_surface(sample: VoxelSample) -> None:
    output = perfect_output(sample)
    losses = reconstruction_losses(output, sample, 64)
    assert {k: round(float(v), 4) for k, v in losses.items()} == dict.fromkeys(losses, 0.0)
    fine = SparseIndex(sample.coords).subdivision().coords[:, 1:]
    inside = SparseIndex(sample.interior).subdivision().coords[:, 1:]
    surface = extract_surface(fine, output, 64, inside)
    from fastsam3d.procedural.objects import make_object

    distance = make_object(5).sdf(surface.vertices)
    assert len(surface.faces) > 500
    assert distance.abs().mean() < 0.15 / 64


def test_shell_and_interior_are_the_occupied_voxels(sample: VoxelSample) -> None:
    from fastsam3d.procedural.objects import make_object

    occupied = occupied_voxels(make_object(5).sdf, RESOLUTION)
    joined = torch.cat([sample.coords, sample.interior])
    assert torch.equal(torch.unique(joined, dim=0), torch.unique(occupied, dim=0))


def test_normals_are_gradients(sample: VoxelSample) -> None:
    lengths = sample.normals[sample.near].norm(dim=-1)
    torch.testing.assert_close(lengths, torch.ones_like(lengths), atol=1e-4, rtol=0)
    assert (sample.normals[~sample.near] == 0).all()


def test_latents_of_a_plane_by_hand() -> None:
    # distance = x + 2 y + 3 z + 0.5 in cubes about the centre of one voxel, red above and below
    steps = torch.tensor([(x, y, z) for x in (-1, 0, 1) for y in (-1, 0, 1) for z in (-1, 0, 1)]).float()
    lattice = (steps @ torch.tensor([1.0, 2.0, 3.0]) + 0.5).unsqueeze(0)
    colors = torch.tensor([1.0, 0.0, 0.5]).expand(1, 27, 3)
    near = torch.ones(1, 27, dtype=torch.bool)
    coords = torch.zeros(1, 4, dtype=torch.int32)
    latents = VoxelSample(coords, coords, lattice, colors, torch.zeros(1, 27, 3), near).latents()
    expected = torch.tensor([[0.5 / 3, 1.0, 2.0, 3.0, 0.0, 1.0, -1.0, 0.0]])
    torch.testing.assert_close(latents, expected)


def test_placement() -> None:
    points = torch.tensor([[0.2, 0.1, 0.0]])
    moved = Placement(0.5, True).into_object(points)
    torch.testing.assert_close(moved, torch.tensor([[-0.4, 0.2, 0.0]]))


def test_drawn_samples_are_reproducible_and_not_held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from fastsam3d.training.structured_latent import data

    seeds = []
    original = data.training_object
    monkeypatch.setattr(data, "training_object", lambda seed: seeds.append(seed) or original(seed))
    first = draw_sample(np.random.default_rng(3), RESOLUTION)
    second = draw_sample(np.random.default_rng(3), RESOLUTION)
    assert torch.equal(first.coords, second.coords)
    assert torch.equal(first.colors, second.colors)
    assert max(seeds) < HELD_OUT_SEED


def test_autoencoder_learns(sample: VoxelSample, config: ModelConfig) -> None:
    torch.manual_seed(0)
    model = StructuredLatentAutoencoder(config)
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(6):
        loss, _ = autoencoder_loss(model, sample, torch.ones(8), generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]
    assert model.encode(sample).shape == (len(sample.coords), 8)


def test_times_reach_both_ends() -> None:
    times = sample_latent_times(20_000, torch.Generator().manual_seed(0))
    assert times.min() > 0
    assert times.max() < 1
    # Shifted half: t < 0.05 means u < 0.05 * 12 / (1 + 0.05 * 11) = 0.387; of the other half one fifth is
    # uniform, the rest (logit-normal around -0.8) is below 0.05 with probability Phi(-2.14) = 0.016.
    expected = 0.5 * 0.387 + 0.5 * (0.2 * 0.05 + 0.8 * 0.016)
    assert float((times < 0.05).float().mean()) == pytest.approx(expected, abs=0.015)


def test_flow_loss_of_zero_velocity_is_the_target_power(config: ModelConfig) -> None:
    torch.manual_seed(0)
    stage = StructuredLatentStage(config)
    torch.nn.init.zeros_(stage.generator.out_layer.weight)
    cells = torch.randperm(4096)[:60].sort().values
    coords = torch.stack([torch.zeros_like(cells), cells // 256, cells // 16 % 16, cells % 16], 1).int()
    coords[40:, 0] = 1  # two objects, of 40 and 20 voxels
    inputs = {name: torch.rand(2, 3, 64, 64) for name in ("image", "rgb_image")}
    inputs |= {name: torch.rand(2, 1, 64, 64) for name in ("mask", "rgb_image_mask")}
    loss, _ = flow_loss(stage, inputs, coords, torch.full((60, 8), 2.0), 2, torch.Generator().manual_seed(0))
    # Target = data - noise: power 4 + 1, up to the spread of 960 normal numbers.
    assert float(loss.detach()) == pytest.approx(5.0, abs=0.5)
    loss.backward()
    assert stage.generator.out_layer.weight.grad.abs().max() > 0


def test_velocity_begins_by_removing_the_noise(config: ModelConfig) -> None:
    torch.manual_seed(0)
    stage = StructuredLatentStage(config)
    coords = torch.nonzero(torch.ones(1, 6, 6, 6)).int()
    inputs = {name: torch.rand(1, 3, 64, 64) for name in ("image", "rgb_image")}
    inputs |= {name: torch.rand(1, 1, 64, 64) for name in ("mask", "rgb_image_mask")}
    noise = torch.randn(len(coords), 8)
    with torch.no_grad():
        velocity = stage(noise, torch.zeros(1), inputs, torch.ones(1), coords, 1)
    # What is left of the noise: the normalisation's scale varies a little with the eight states of a voxel.
    assert float((velocity + noise).square().mean()) < 0.05
    # Voxels of one cell are told apart: with their mean the similarity would be about 1 / sqrt(8).
    assert torch.nn.functional.cosine_similarity(velocity, -noise, dim=1).min() > 0.9


def test_removing_noise_needs_a_skip_at_full_resolution_and_room(config: ModelConfig) -> None:
    one = replace(config, slat_generator=replace(config.slat_generator, num_io_res_blocks=1))
    with pytest.raises(ValueError, match="num_io_res_blocks"):
        StructuredLatentStage(one)
    narrow = replace(config, slat_generator=replace(config.slat_generator, io_channels=(8,)))
    with pytest.raises(ValueError, match="io_channels"):
        StructuredLatentStage(narrow)
    begin_by_removing_noise(StructuredLatentStage(config).generator)
