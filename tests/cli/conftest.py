"""A command line whose pipeline takes a fraction of a second, and a folder with a picture and its masks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from fastsam3d.cli.main import main
from fastsam3d.sam3d.checkpoints.loading import check_device, model_config
from fastsam3d.sam3d.models.build import build_condition_embedders, build_models
from fastsam3d.sam3d.pipeline.pipeline import Pipeline

HEIGHT, WIDTH = 48, 64
QUICK = ("device=cpu", "model.ss_sampler.inference_steps=4", "model.slat_sampler.inference_steps=4", "preview=false")


class Ball(nn.Module):
    """Stands in for the occupancy decoder: the same small ball whatever the latent."""

    def forward(self, tokens: Tensor) -> Tensor:
        axis = torch.arange(32) + 0.5 - 16
        x, y, z = torch.meshgrid(axis, axis, axis, indexing="ij")
        return (4.0 - (x * x + y * y + z * z).sqrt())[None, None] + 0 * tokens.sum()


def tiny_pipeline() -> Pipeline:
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


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """The command line loads a tiny pipeline; the arguments of every load are recorded."""
    calls = []

    def load(model: str, **options: object) -> Pipeline:
        check_device(options["device"])
        calls.append({"model": model, **options, "pipeline": tiny_pipeline()})
        return calls[-1]["pipeline"]

    monkeypatch.setattr("fastsam3d.sam3d.checkpoints.loading.load_pipeline", load)
    return calls


def disc(row: int, column: int, radius: int = 9) -> np.ndarray:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return (columns - column) ** 2 + (rows - row) ** 2 < radius**2


def save_cutout(path: Path, picture: np.ndarray, mask: np.ndarray) -> None:
    Image.fromarray(np.dstack([picture, mask.astype(np.uint8) * 255])).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """`vase/` with image.png, the cut-outs 0.png and 1.png, and a grey mask 2.png."""
    folder = tmp_path / "vase"
    folder.mkdir()
    picture = np.full((HEIGHT, WIDTH, 3), 120, dtype=np.uint8)
    masks = [disc(20, 20), disc(26, 46), disc(24, 32, 14)]
    picture[masks[0]], picture[masks[1]] = (220, 40, 30), (30, 60, 200)
    Image.fromarray(picture).save(folder / "image.png")
    save_cutout(folder / "0.png", picture, masks[0])
    save_cutout(folder / "1.png", picture, masks[1])
    Image.fromarray(masks[2].astype(np.uint8) * 255).save(folder / "2.png")
    return folder


@pytest.fixture
def run(loaded: list[dict], capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs a verb on the tiny pipeline, in this process: (exit code, stdout, stderr)."""

    def run(verb: str, *words: object) -> tuple[int, str, str]:
        quick = QUICK if verb in ("infer", "scene") else ()
        code = main([verb, *quick, *(str(word) for word in words)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run
