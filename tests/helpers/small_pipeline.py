"""The mini model's classes at a size that runs in a fraction of a second, with weights that are nowhere zero."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from fastsam3d.sam3d.checkpoints.loading import model_config
from fastsam3d.sam3d.models.build import build_condition_embedders, build_models
from fastsam3d.sam3d.models.config import ConditionEmbedderConfig, GaussianDecoderConfig, ModelConfig
from fastsam3d.sam3d.pipeline.pipeline import Pipeline

STEPS = 9
"""Enough for warm-up, forecast, guidance edge and end."""
WIDTH = 64
SETTINGS = {"token_aggregation.minimum_voxels": 16, "token_aggregation.threshold_low": 0.0}
"""Overrides that let aggregation act on so small an object."""


def small_config() -> ModelConfig:
    config = model_config("mini")
    transformer = {"model_channels": WIDTH, "num_blocks": 2, "num_heads": 2, "cond_channels": WIDTH}

    def embedder(part: ConditionEmbedderConfig) -> ConditionEmbedderConfig:
        dino = {"channels": WIDTH, "depth": 1, "heads": 2}
        points = part.pointmap and replace(part.pointmap, channels=WIDTH, heads=2)
        return replace(
            part,
            channels=WIDTH,
            hidden_multiple=16,
            image=replace(part.image, **dino),
            mask=replace(part.mask, **dino),
            pointmap=points,
        )

    decoder = {"resolution": 16, "latent_channels": 8, "model_channels": WIDTH, "num_blocks": 2, "num_heads": 2}
    return replace(
        config,
        resolution=16,
        ss_condition_embedder=embedder(config.ss_condition_embedder),
        ss_generator=replace(config.ss_generator, latent_resolution=2, **transformer),
        ss_sampler=replace(config.ss_sampler, inference_steps=STEPS),
        ss_decoder=replace(config.ss_decoder, channels=(16, 8, 8)),
        slat_condition_embedder=embedder(config.slat_condition_embedder),
        slat_generator=replace(config.slat_generator, resolution=16, io_channels=(16,), **transformer),
        slat_sampler=replace(config.slat_sampler, inference_steps=STEPS),
        slat_decoder_mesh=replace(config.slat_decoder_mesh, upsample_channels=(16,), **decoder),
        slat_decoder_gs=GaussianDecoderConfig(window=8, gaussians=4, **decoder),
    )


def small_pipeline(seed: int = 0) -> Pipeline:
    """On the CPU, in fp32; the same at every call."""
    config = small_config()
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        models, embedders = build_models(config), build_condition_embedders(config)
    for module in (models, *embedders.values()):
        for parameter in module.parameters():
            parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
        module.eval().requires_grad_(False)
    models["ss_decoder"].out_layer[-1].bias.data -= 0.3  # fewer voxels
    return Pipeline(models, embedders, config)


def picture() -> tuple[np.ndarray, np.ndarray]:
    """Noise with a square object."""
    image = np.random.default_rng(0).integers(0, 255, (48, 48, 3), dtype=np.uint8)
    mask = np.zeros((48, 48), bool)
    mask[10:36, 14:40] = True
    return image, mask
