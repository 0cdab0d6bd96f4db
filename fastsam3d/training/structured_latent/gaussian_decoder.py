"""Trains the mini model's Gaussian decoder, on the latents that the mesh decoder reads.

    python -m fastsam3d train gaussian-decoder --output RUN --minutes 30 --trunk slat_decoder_mesh.safetensors

The target of every Gaussian is known (`gaussian_targets`), so nothing is rendered.
"""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from fastsam3d.errors import UserError
from fastsam3d.modules.voxels import split_interior
from fastsam3d.procedural import HELD_OUT_SEED
from fastsam3d.procedural.objects import ProceduralObject, make_object
from fastsam3d.sam3d.checkpoints.folder import read_state
from fastsam3d.sam3d.checkpoints.loading import model_config
from fastsam3d.sam3d.models.config import ModelConfig
from fastsam3d.sam3d.models.structured_latent_decoder import GaussianDecoder
from fastsam3d.training.loop import TrainingLoop
from fastsam3d.training.optimization import Average, Budget, OptimizerGroup, cosine_factor
from fastsam3d.training.options import GaussianDecoderOptions
from fastsam3d.training.shipped_weights import shipped_part
from fastsam3d.training.structured_latent.autoencoder import LATENT_NOISE
from fastsam3d.training.structured_latent.data import (
    DILATION,
    Placement,
    VoxelSample,
    occupied_voxels,
    voxel_sample,
)
from fastsam3d.training.structured_latent.gaussian_targets import (
    WEIGHTS,
    GaussianTarget,
    gaussian_losses,
    gaussian_target,
)

logger = logging.getLogger(__name__)


def make_decoder(config: ModelConfig) -> GaussianDecoder:
    """A decoder of the model's sizes, whose Gaussians begin near their places.

    Raises:
        UserError: the model has no Gaussian decoder.
    """
    if config.slat_decoder_gs is None:
        raise UserError(f"The model {config.name!r} has no Gaussian decoder: give slat_decoder_gs sizes in its file.")
    decoder = GaussianDecoder(**asdict(config.slat_decoder_gs))
    for module in decoder.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    with torch.no_grad():
        decoder.out_layer.weight.mul_(0.1)
    return decoder


def load_trunk(decoder: GaussianDecoder, path: str | Path) -> None:
    """Takes the input layer and the blocks of a mesh decoder of the same sizes.

    Raises:
        UserError: the file cannot be read, or its trunk has other sizes.
    """
    state, own = read_state(Path(path)), decoder.state_dict()
    names = [name for name in own if name.startswith(("input_layer.", "blocks."))]
    wrong = [name for name in names if name not in state or state[name].shape != own[name].shape]
    if wrong:
        raise UserError(f"{path} has no trunk of these sizes: {wrong[0]} is missing or of another shape.")
    decoder.load_state_dict({name: state[name] for name in names}, strict=False)


def draw_object(rng: np.random.Generator, resolution: int) -> tuple[ProceduralObject, Placement, VoxelSample]:
    """A random training object with its voxels, some of them smaller or with a ragged outline."""
    item = make_object(int(rng.integers(HELD_OUT_SEED)))
    scale = float(rng.uniform(0.5, 1.0)) if rng.random() < 0.25 else 1.0
    placement, noise = Placement(scale, bool(rng.random() < 0.5)), None
    if rng.random() < 0.15:
        noise = torch.from_numpy(rng.normal(0, 0.35, (resolution,) * 3).astype(np.float32))
    coords = occupied_voxels(
        lambda p: item.sdf(placement.into_object(p)) * placement.scale, resolution, DILATION, noise
    )
    shell, interior = split_interior(coords)
    return item, placement, voxel_sample(item, shell, interior, resolution, placement, with_normals=False)


def decoder_losses(
    decoder: GaussianDecoder, sample: VoxelSample, target: GaussianTarget, noise: Tensor | None = None
) -> dict[str, Tensor]:
    """Losses of one object, see `gaussian_losses`; `noise [N, C]` is added to its latents."""
    latents = sample.latents()
    gaussian = decoder(latents if noise is None else latents + noise, sample.coords)[0]
    return gaussian_losses(gaussian, target, decoder.resolution)


@torch.no_grad()
def evaluate(decoder: GaussianDecoder, count: int = 8) -> dict[str, float]:
    """Means of the losses over held-out objects, from their true voxels and latents."""
    records = []
    for offset in range(count):
        item = make_object(HELD_OUT_SEED + offset)
        shell, interior = split_interior(occupied_voxels(item.sdf, decoder.resolution))
        sample = voxel_sample(item, shell, interior, decoder.resolution, Placement(), with_normals=False)
        target = gaussian_target(item, Placement(), sample.coords[:, 1:], decoder)
        records.append({name: float(v) for name, v in decoder_losses(decoder, sample, target).items()})
    return {name: float(np.mean([record[name] for record in records])) for name in records[0]}


def train(options: GaussianDecoderOptions) -> None:
    """Runs, or resumes, the training that the options describe.

    Raises:
        UserError: the model has no Gaussian decoder; two sets of weights to start from; or a trunk that does not fit.
    """
    config = model_config(options.model)
    torch.manual_seed(options.seed)  # initial weights; this is a program of its own
    generator = torch.Generator().manual_seed(options.seed)
    decoder = make_decoder(config)
    if options.start_shipped and options.trunk is not None:
        raise UserError("The shipped weights have a trunk of their own: give --start-shipped or --trunk.")
    if options.start_shipped:
        decoder.load_state_dict(shipped_part(options.model, "slat_decoder_gs"))
    elif options.trunk is not None:
        load_trunk(decoder, options.trunk)
    optimizer = OptimizerGroup(
        decoder, options.learning_rate, options.matrix_learning_rate, keep=("input_layer", "out_layer")
    )
    average = Average(decoder, options.average)
    budget = Budget(options.minutes, options.steps)
    spread = torch.tensor(config.slat_std)
    loop = TrainingLoop(
        "Gaussian decoder", options.output, budget, decoder, optimizer, generator, average=average, save_seconds=60.0
    )
    for progress in loop.steps():
        rng = np.random.default_rng([options.seed, loop.budget.step])
        for _ in range(options.batch):
            item, placement, sample = draw_object(rng, config.resolution)
            target = gaussian_target(item, placement, sample.coords[:, 1:], decoder)
            strength = LATENT_NOISE * torch.rand(1, generator=generator)
            noise = torch.randn(len(sample.coords), config.slat_decoder_mesh.latent_channels, generator=generator)
            losses = decoder_losses(decoder, sample, target, strength * noise * spread)
            total = torch.stack([WEIGHTS[name] * value for name, value in losses.items()]).sum()
            (total / options.batch).backward()
            loop.record(losses)
        optimizer.step(cosine_factor(progress, warmup=0.03))
        average.update(decoder)
    decoder.load_state_dict(average.state)
    results = evaluate(decoder.eval())
    loop.write_log(**{f"held_out_{name}": value for name, value in results.items()})
    logger.info("held out: %s", ", ".join(f"{name} {value:.4f}" for name, value in results.items()))
