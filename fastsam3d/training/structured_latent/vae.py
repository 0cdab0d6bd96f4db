"""Trains the mini model's mesh decoder, with an encoder of latents that exists for training only.

    python -m fastsam3d train structured-latent-vae --output RUN --minutes 20
    python -m fastsam3d train structured-latent-vae --output RUN --statistics    (again, of a finished run)

See `structured_latent_autoencoder` for what is learned.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from fastsam3d.errors import UserError
from fastsam3d.sam3d.checkpoints.loading import model_config
from fastsam3d.training.data.data_source import open_dataset
from fastsam3d.training.data.device_dataset import DeviceDataset
from fastsam3d.training.loop import TrainingLoop
from fastsam3d.training.optimization import Budget, OptimizerGroup, cosine_factor, require_checkpoint
from fastsam3d.training.options import StructuredLatentVaeOptions
from fastsam3d.training.structured_latent.autoencoder import StructuredLatentAutoencoder, autoencoder_loss, evaluate
from fastsam3d.training.structured_latent.batch import PlacementBatch, voxel_samples
from fastsam3d.training.structured_latent.data import VoxelSample, draw_sample, latent_statistics

logger = logging.getLogger(__name__)

OWN_LAYER = "decoder.input_layer"
"""Layer tied to the meaning of the latents, which a start from other weights leaves out."""


def sample_source(options: StructuredLatentVaeOptions, resolution: int) -> Callable[[int], list[VoxelSample]]:
    """Gives the samples of a step, which depend on its number only, so that a resumed run sees new ones.

    Beside shards on disk objects are made and decoded one by one; those of a data set on the device form one batched
    sample.
    """
    dataset = None if options.data is not None else open_dataset(options)
    if not isinstance(dataset, DeviceDataset):

        def draw(step: int) -> list[VoxelSample]:
            rng = np.random.default_rng([options.seed, step])
            return [draw_sample(rng, resolution) for _ in range(options.batch)]

        return draw

    def draw_batch(step: int) -> list[VoxelSample]:
        rows = np.random.default_rng([options.seed, step]).integers(len(dataset), size=options.batch)
        generator = torch.Generator(dataset.device).manual_seed(options.seed * 1_000_003 + step)
        placement = PlacementBatch.draw(options.batch, resolution, generator)
        return [voxel_samples(dataset.table_batch(rows), resolution, placement)]

    return draw_batch


def train(options: StructuredLatentVaeOptions) -> None:
    """Runs, or resumes, the training that the options describe.

    Raises:
        UserError: a checkpoint that it builds on, or whose statistics are asked for, is missing.
    """
    config = model_config(options.model)
    resolution = config.resolution
    torch.manual_seed(options.seed)  # initial weights; this is a program of its own
    device = torch.device(options.device)
    generator = torch.Generator(device).manual_seed(options.seed)
    model = StructuredLatentAutoencoder(config).to(device)
    if options.start is not None:
        earlier = require_checkpoint(Path(options.start), "--start names the checkpoint.pt of an earlier run")
        own = model.state_dict()
        fitting = {k: v for k, v in earlier["model"].items() if k in own and not k.startswith(OWN_LAYER)}
        model.load_state_dict(fitting, strict=False)
    optimizer = OptimizerGroup(
        model,
        options.learning_rate,
        options.matrix_learning_rate,
        keep=("input_layer", "out_layer"),
    )
    statistics = latent_statistics(resolution)
    loop = TrainingLoop(
        "structured-latent VAE",
        options.output,
        Budget(options.minutes, 0 if options.statistics else options.steps),
        model,
        optimizer,
        generator,
        contents=statistics,
    )
    if options.statistics:
        if not loop.resumed:
            raise UserError(f"There is no run in {options.output} whose statistics to take: train it first.")
        loop.save()
    else:
        source = sample_source(options, resolution)
        for progress in loop.steps():
            samples = source(loop.budget.step)
            for sample in samples:
                with torch.autocast(device.type, torch.bfloat16):
                    loss, parts = autoencoder_loss(model, sample, statistics["latent_std"], generator)
                (loss / len(samples)).backward()
                loop.record(parts)
            optimizer.step(cosine_factor(progress, warmup=0.03))
    results = evaluate(model.cpu().eval(), resolution)
    loop.write_log(**{f"held_out_{k}": v for k, v in results.items()})
    logger.info("held out: %s", ", ".join(f"{k} {v:.4f}" for k, v in results.items()))
