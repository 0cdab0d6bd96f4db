"""A pipeline that runs in a fraction of a second: one-block random networks around a known ball."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fastsam3d.sam3d.checkpoints.loading import model_config
from fastsam3d.sam3d.models.build import build_condition_embedders, build_models
from fastsam3d.sam3d.models.config import ModelConfig
from fastsam3d.sam3d.pipeline.pipeline import Pipeline

RADIUS = 5.0
"""Of the ball, in voxels about the middle of the grid."""


class BallDecoder(nn.Module):
    """Stands in for the occupancy decoder: the same ball whatever the latent."""

    def forward(self, tokens: Tensor) -> Tensor:
        axis = torch.arange(32, device=tokens.device) + 0.5 - 16
        x, y, z = torch.meshgrid(axis, axis, axis, indexing="ij")
        return (RADIUS - (x * x + y * y + z * z).sqrt())[None, None] + 0 * tokens.sum((1, 2))[:, None, None, None, None]


def tiny(config: ModelConfig) -> ModelConfig:
    """The mini model with networks of one block and two steps."""
    return replace(
        config,
        ss_generator=replace(config.ss_generator, num_blocks=1),
        slat_generator=replace(config.slat_generator, num_blocks=1),
        slat_decoder_mesh=replace(config.slat_decoder_mesh, num_blocks=1),
        ss_sampler=replace(config.ss_sampler, inference_steps=2),
        slat_sampler=replace(config.slat_sampler, inference_steps=2),
    )


@pytest.fixture(scope="session")
def tiny_config() -> ModelConfig:
    return tiny(model_config("mini"))


@pytest.fixture
def pipeline(tiny_config: ModelConfig) -> Pipeline:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        models = build_models(tiny_config, ("mesh",))
        embedders = build_condition_embedders(tiny_config)
    models["ss_decoder"] = BallDecoder()
    for module in (models, *embedders.values()):
        module.eval()
    return Pipeline(models, embedders, tiny_config)


@pytest.fixture
def picture() -> tuple[np.ndarray, np.ndarray]:
    """A red disc on grey, and its mask."""
    rows, columns = np.mgrid[:48, :64]
    mask = (columns - 30) ** 2 + (rows - 20) ** 2 < 12**2
    image = np.full((48, 64, 3), 120, dtype=np.uint8)
    image[mask] = [220, 40, 30]
    return image, mask
