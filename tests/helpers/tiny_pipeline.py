"""A complete native pipeline that is tiny, with random weights that are not zero anywhere."""

from __future__ import annotations

import dataclasses

import torch

from fastsam3d.basics.config_files import config_directory
from fastsam3d.sam3d.models.build import build_condition_embedders, build_models
from fastsam3d.sam3d.models.config import ModelConfig, load_model_config
from fastsam3d.sam3d.pipeline.pipeline import Pipeline

STEPS = 9
"""Enough for warm-up, forecast, guidance edge and end; odd, so that no step of either grid lies on the edge."""


def tiny_config() -> ModelConfig:
    config = load_model_config(config_directory() / "model" / "mini.yaml")
    transformer = {"model_channels": 24, "num_blocks": 2, "num_heads": 2, "cond_channels": 24}

    def embedder(part):
        image = dataclasses.replace(part.image, channels=24, depth=1, heads=2)
        mask = dataclasses.replace(part.mask, channels=24, depth=1, heads=2)
        points = part.pointmap and dataclasses.replace(part.pointmap, channels=24, heads=2)
        return dataclasses.replace(part, channels=24, hidden_multiple=8, image=image, mask=mask, pointmap=points)

    return dataclasses.replace(
        config,
        resolution=16,
        ss_condition_embedder=embedder(config.ss_condition_embedder),
        ss_generator=dataclasses.replace(config.ss_generator, latent_resolution=2, **transformer),
        ss_sampler=dataclasses.replace(config.ss_sampler, inference_steps=STEPS),
        ss_decoder=dataclasses.replace(config.ss_decoder, channels=(16, 8, 8)),
        slat_condition_embedder=embedder(config.slat_condition_embedder),
        slat_generator=dataclasses.replace(config.slat_generator, resolution=16, io_channels=(8,), **transformer),
        slat_sampler=dataclasses.replace(config.slat_sampler, inference_steps=STEPS),
        slat_decoder_mesh=dataclasses.replace(
            config.slat_decoder_mesh,
            resolution=16,
            model_channels=24,
            num_blocks=1,
            num_heads=2,
            upsample_channels=(8,),
        ),
    )


def tiny_pipeline(seed: int = 0) -> Pipeline:
    config = tiny_config()
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        models = build_models(config, ("mesh",))
        embedders = build_condition_embedders(config)
    for module in (models, *embedders.values()):
        for parameter in module.parameters():
            # Many layers begin at zero, which would hide what this library skips.
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
        module.eval().requires_grad_(False)
    # Few voxels: the surface is most of the time of so small a pipeline.
    models["ss_decoder"].out_layer[-1].bias.data -= 0.7
    return Pipeline(models, embedders, config)
