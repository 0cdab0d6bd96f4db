"""Trains the mini model's mesh decoder, with an encoder of latents that exists for training only.

    python -m fastsam3d.training.structured_latent_vae --output RUN --minutes 20
    python -m fastsam3d.training.structured_latent_vae --output RUN --statistics    (again, of a finished run)

The decoder's first eight channels are learned as signed distances in cubes of the surface grid, raised by
one cube side over the grid's resolution: extraction subtracts 1 / resolution from them (SAM 3D Objects
architecture, section 8.2). Otherwise it does not depend on their scale, except that unknown corners count as
one cube away.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from fastsam3d.models.config import ModelConfig
from fastsam3d.models.structured_latent_decoder import MeshDecoder
from fastsam3d.pipeline.loading import model_config
from fastsam3d.procedural.objects import HELD_OUT_SEED
from fastsam3d.training.data_source import add_data_arguments, add_run_arguments, open_dataset
from fastsam3d.training.device_dataset import DeviceDataset
from fastsam3d.training.optimization import (
    Budget,
    LossLog,
    OptimizerGroup,
    cosine_factor,
    load_checkpoint,
    save_checkpoint,
)
from fastsam3d.training.structured_latent_batch import PlacementBatch, voxel_samples
from fastsam3d.training.structured_latent_data import (
    VoxelSample,
    corner_columns,
    draw_sample,
    latent_statistics,
    object_sample,
)

logger = logging.getLogger(__name__)

OWN_LAYER = "decoder.input_layer"
"""Layer tied to the meaning of the latents, which a start from other weights leaves out."""
LATENT_NOISE = 0.6
"""Largest standard deviation, relative to the latents' own, of the noise that the decoder is trained with."""


class StructuredLatentAutoencoder(nn.Module):
    """The fixed encoder and the mesh decoder."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        sizes = config.slat_decoder_mesh
        self.decoder = MeshDecoder(**asdict(sizes))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        with torch.no_grad():
            self.decoder.out_layer.weight.mul_(0.1)

    def encode(self, sample: VoxelSample) -> Tensor:
        """Latents `[N, C]`, on the model's device."""
        return sample.latents().to(self.decoder.out_layer.weight.device)


def reconstruction_losses(output: Tensor, sample: VoxelSample, resolution: int) -> dict[str, Tensor]:
    """Losses of decoded features.

    Args:
        output: `[8 N, 101]`, fp32.
        sample: the object.
        resolution: side of the surface grid.

    Returns:
        `sdf` (mean distance error in cubes, near points counting four times), `color` (L1), `normal` (L1 of
        the 0..1 code), `regular` (mean squares of corner offsets and weights), and `sign` (share of wrong
        signs near the surface), which is not a loss.
    """
    columns = corner_columns().flatten().to(output.device)
    distance = sample.lattice[:, columns].reshape(-1, 8)
    near = sample.near[:, columns].reshape(-1, 8).float()
    weight = 0.25 + 0.75 * near
    predicted = output[:, :8]
    sdf = (weight * (predicted - 1.0 / resolution - distance).abs()).sum() / weight.sum()
    codes = torch.sigmoid(output[:, 53:101]).unflatten(1, (8, 6))
    color = (codes[..., :3] - sample.colors[:, columns].reshape(-1, 8, 3)).abs().mean(-1)
    normal = (codes[..., 3:] - (sample.normals[:, columns].reshape(-1, 8, 3) + 1) / 2).abs().mean(-1)
    count = near.sum().clamp(min=1)
    wrong = ((predicted < 1.0 / resolution) != (distance < 0)).float()
    return {
        "sdf": sdf,
        "color": (near * color).sum() / count,
        "normal": (near * normal).sum() / count,
        "regular": output[:, 8:53].square().mean(),
        "sign": (near * wrong).sum() / count,
    }


def autoencoder_loss(
    model: StructuredLatentAutoencoder, sample: VoxelSample, spread: Tensor, generator: torch.Generator
) -> tuple[Tensor, dict[str, Tensor]]:
    """Total loss of one or more objects and its parts.

    Args:
        model: the networks.
        sample: the objects, on the model's device.
        spread: standard deviation of the latents per channel `[C]`, the unit of the added noise.
        generator: source of the noise; its strength is drawn per object, uniform from 0 to `LATENT_NOISE`.
    """
    latent = model.encode(sample)
    rows = sample.coords[:, 0].long()
    draws = torch.rand(int(rows[-1]) + 1, generator=generator, device=generator.device).to(latent.device)
    noise = torch.randn(latent.shape, generator=generator, device=generator.device).to(latent.device)
    noise = LATENT_NOISE * draws[rows, None] * noise * spread.to(latent.device)
    output = model.decoder(latent + noise, sample.coords).feats.float()
    parts = reconstruction_losses(output, sample, model.decoder.mesh_resolution)
    total = parts["sdf"] + parts["color"] + 0.25 * parts["normal"] + 0.01 * parts["regular"]
    return total, parts


@torch.no_grad()
def evaluate(model: StructuredLatentAutoencoder, resolution: int, count: int = 8) -> dict[str, float]:
    """Reconstruction of held-out objects from their true voxels.

    Returns means over the objects: the losses, and `f1`, the F-score in percent at 0.05 between the decoded
    surface and that of the true distances on the same grid.
    """
    from fastsam3d.evaluation.metrics import compare_surfaces, sample_surface

    generator = np.random.default_rng(0)
    records: list[dict[str, float]] = []
    for offset in range(count):
        sample = object_sample(HELD_OUT_SEED + offset, resolution)
        latents = model.encode(sample)
        sample = sample.to(latents.device)
        output = model.decoder(latents, sample.coords)
        losses = reconstruction_losses(output.feats.float(), sample, model.decoder.mesh_resolution)
        truth = torch.zeros_like(output.feats)
        columns = corner_columns().flatten().to(truth.device)
        truth[:, :8] = sample.lattice[:, columns].reshape(-1, 8) + 1.0 / model.decoder.mesh_resolution
        surfaces = [
            model.decoder.extract(output.replace(feats), sample.interior) for feats in (output.feats, truth)
        ]
        record = {k: float(v) for k, v in losses.items()}
        points = [sample_surface(s.vertices, s.faces, 10000, generator) for s in surfaces]
        scores = compare_surfaces(points[0], points[1])
        record |= {k: float(v) for k, v in scores.items() if k.startswith("f1")}
        records.append(record)
    return {k: float(np.mean([r[k] for r in records])) for k in records[0]}


def load_autoencoder(path: str | Path, config: ModelConfig) -> tuple[StructuredLatentAutoencoder, dict]:
    """The trained autoencoder and its checkpoint.

    Raises:
        FileNotFoundError: there is no checkpoint.
    """
    state = load_checkpoint(Path(path))
    if state is None:
        raise FileNotFoundError(f"no checkpoint at {path}: train the structured-latent VAE first")
    model = StructuredLatentAutoencoder(config)
    model.load_state_dict(state["model"])
    return model.eval(), state


def sample_source(arguments: argparse.Namespace, resolution: int) -> Callable[[int], list[VoxelSample]]:
    """Gives the samples of a step, which depend on its number only, so that a resumed run sees new ones.

    Beside shards on disk objects are made and decoded one by one; those of a data set on the device form one batched
    sample.
    """
    dataset = None if arguments.data is not None else open_dataset(arguments)
    if not isinstance(dataset, DeviceDataset):

        def draw(step: int) -> list[VoxelSample]:
            rng = np.random.default_rng([arguments.seed, step])
            return [draw_sample(rng, resolution) for _ in range(arguments.batch)]

        return draw

    def draw_batch(step: int) -> list[VoxelSample]:
        rows = np.random.default_rng([arguments.seed, step]).integers(len(dataset), size=arguments.batch)
        generator = torch.Generator(dataset.device).manual_seed(arguments.seed * 1_000_003 + step)
        placement = PlacementBatch.draw(arguments.batch, resolution, generator)
        return [voxel_samples(dataset.table_batch(rows), resolution, placement)]

    return draw_batch


def train(arguments: argparse.Namespace) -> None:
    """Runs, or resumes, the training that the command line describes.

    Raises:
        SystemExit: a checkpoint that it builds on is missing.
    """
    config = model_config(arguments.model)
    resolution = config.resolution
    checkpoint = Path(arguments.output) / "checkpoint.pt"
    torch.manual_seed(arguments.seed)  # initial weights; this is a program of its own
    device = torch.device(arguments.device)
    generator = torch.Generator(device).manual_seed(arguments.seed)
    model = StructuredLatentAutoencoder(config).to(device)
    if arguments.start is not None:
        earlier = load_checkpoint(Path(arguments.start))
        if earlier is None:
            raise SystemExit(f"no checkpoint at {arguments.start}")
        own = model.state_dict()
        fitting = {k: v for k, v in earlier["model"].items() if k in own and not k.startswith(OWN_LAYER)}
        model.load_state_dict(fitting, strict=False)
    optimizer = OptimizerGroup(
        model,
        arguments.learning_rate,
        arguments.matrix_learning_rate,
        keep=("input_layer", "out_layer"),
    )
    budget = Budget(arguments.minutes, arguments.steps)
    state = load_checkpoint(checkpoint)
    if state is not None:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        generator.set_state(state["generator"])
        budget.step, budget.spent_seconds = state["step"], state["seconds"]
    statistics = latent_statistics(resolution)
    source = sample_source(arguments, resolution)

    def save() -> None:
        contents: dict[str, Any] = {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            **statistics,
        }
        contents |= {"generator": generator.get_state(), "step": budget.step, "seconds": budget.spent_seconds}
        save_checkpoint(checkpoint, contents)

    log = LossLog(Path(arguments.output) / "losses.jsonl")
    saved = budget.spent_seconds
    bar = tqdm(total=100, unit="%", desc="structured-latent VAE")
    running: dict[str, Tensor] = {}
    budget.begin()
    while budget.progress < 1 and not arguments.statistics:
        samples = source(budget.step)
        for sample in samples:
            with torch.autocast(device.type, torch.bfloat16):
                loss, parts = autoencoder_loss(model, sample, statistics["latent_std"], generator)
            (loss / len(samples)).backward()
            for name, value in parts.items():
                old = running.get(name, value.detach())
                running[name] = torch.lerp(old, value.detach(), 0.02)
        norm = optimizer.step(cosine_factor(budget.progress, warmup=0.03))
        budget.advance()
        if budget.step % 10 == 0:
            log.write(step=budget.step, seconds=budget.spent_seconds, norm=norm, **running)
            bar.set_postfix({k: f"{float(v):.3f}" for k, v in running.items()} | {"step": budget.step})
        bar.update(100 * budget.progress - bar.n)
        if budget.spent_seconds - saved > 120:
            saved = budget.spent_seconds
            save()
    bar.close()
    model.eval()
    save()
    results = evaluate(model.cpu(), resolution)
    log.write(
        step=budget.step, seconds=budget.spent_seconds, **{f"held_out_{k}": v for k, v in results.items()}
    )
    logger.info("held out: %s", ", ".join(f"{k} {v:.4f}" for k, v in results.items()))


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_data_arguments(parser)
    add_run_arguments(parser)
    parser.add_argument("--start", default=None, help="checkpoint of an earlier run whose blocks to start from")
    parser.add_argument(
        "--statistics", action="store_true", help="only statistics and evaluation of a finished run"
    )
    parser.add_argument("--batch", type=int, default=2, help="objects a step")
    parser.add_argument("--learning-rate", type=float, default=2e-3, help="AdamW's peak")
    parser.add_argument(
        "--matrix-learning-rate", type=float, default=2e-3, help="Muon's peak; 0 switches it off"
    )
    settings = parser.parse_args(arguments)
    if settings.statistics:
        settings.minutes, settings.steps = None, 1
    train(settings)


if __name__ == "__main__":
    main()
