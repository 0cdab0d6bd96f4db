"""A pipeline that takes a fraction of a second, with a ball for every object, and a folder with a picture and masks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from fastsam3d.sam3d.checkpoints.loading import model_config
from fastsam3d.sam3d.models.build import build_condition_embedders, build_models
from fastsam3d.sam3d.pipeline.pipeline import Pipeline

HEIGHT, WIDTH = 48, 64


class Ball(nn.Module):
    """Stands in for the occupancy decoder: the same small ball whatever the latent."""

    def forward(self, tokens: Tensor) -> Tensor:
        axis = torch.arange(32) + 0.5 - 16
        x, y, z = torch.meshgrid(axis, axis, axis, indexing="ij")
        return (4.0 - (x * x + y * y + z * z).sqrt())[None, None] + 0 * tokens.sum()


def ball_pipeline() -> Pipeline:
    """The small model with one block a network and random weights."""
    config = model_config("mini")
    config = replace(
        config,
        ss_generator=replace(config.ss_generator, num_blocks=1),
        slat_generator=replace(config.slat_generator, num_blocks=1),
        slat_decoder_mesh=replace(config.slat_decoder_mesh, num_blocks=1),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        models = build_models(config, ("mesh",))
        embedders = build_condition_embedders(config)
    models["ss_decoder"] = Ball()
    for module in (models, *embedders.values()):
        module.eval().requires_grad_(False)
    return Pipeline(models, embedders, config)


def disc(row: int, column: int, radius: int = 9) -> np.ndarray:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return (columns - column) ** 2 + (rows - row) ** 2 < radius**2


def save_cutout(path: Path, picture: np.ndarray, mask: np.ndarray) -> None:
    Image.fromarray(np.dstack([picture, mask.astype(np.uint8) * 255])).save(path)


def write_vase(folder: Path) -> None:
    """Writes image.png, the cut-outs 0.png and 1.png, and a grey mask 2.png."""
    folder.mkdir()
    picture = np.full((HEIGHT, WIDTH, 3), 120, dtype=np.uint8)
    masks = [disc(20, 20), disc(26, 46), disc(24, 32, 14)]
    picture[masks[0]], picture[masks[1]] = (220, 40, 30), (30, 60, 200)
    Image.fromarray(picture).save(folder / "image.png")
    save_cutout(folder / "0.png", picture, masks[0])
    save_cutout(folder / "1.png", picture, masks[1])
    Image.fromarray(masks[2].astype(np.uint8) * 255).save(folder / "2.png")
