"""Trains the structured-latent generator and its condition embedder on the latents of procedural objects.

    python -m fastsam3d.training.structured_latent_flow --data DIR --vae VAE --output RUN --minutes 40

Flow matching: `x_t = (1 - t) noise + t data`, target velocity `data - noise`, mean squared error over
voxels. The condition is zeroed for a tenth of the images, which trains the unconditional pass.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from fastsam3d.models.build import build_condition_embedder
from fastsam3d.models.config import ModelConfig, load_model_config
from fastsam3d.models.structured_latent_generator import StructuredLatentGenerator
from fastsam3d.models.voxels import split_interior
from fastsam3d.pipeline.preprocessing import mean_color
from fastsam3d.procedural.objects import make_object
from fastsam3d.training.dataset import ProceduralDataset, build_condition_batch
from fastsam3d.training.optimization import (
    Average,
    Budget,
    LossLog,
    OptimizerGroup,
    cosine_factor,
    load_checkpoint,
    mean_square,
    save_checkpoint,
)
from fastsam3d.training.sparse_structure_flow import initialise, sample_times
from fastsam3d.training.structured_latent_data import COLOR_CHANNELS, Placement, occupied_voxels, voxel_sample

CONDITION_INPUTS = ("image", "rgb_image", "mask", "rgb_image_mask")
"""Inputs of the second stage's condition embedder."""
RAGGED = 0.3
"""Share of objects whose voxels deviate from the true ones, as predicted voxels do."""


class StructuredLatentStage(nn.Module):
    """Condition embedder and generator, trained together."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.condition_embedder = build_condition_embedder(config.slat_condition_embedder)
        self.generator = StructuredLatentGenerator(**asdict(config.slat_generator))
        initialise(self)

    def load_embedder(self, state: dict[str, Tensor]) -> int:
        """Starts from the first stage's condition embedder; returns how many tensors fitted."""
        prefix = "condition_embedder."
        own = self.condition_embedder.state_dict()
        found = {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}
        fitting = {k: v for k, v in found.items() if k in own and v.shape == own[k].shape}
        self.condition_embedder.load_state_dict(fitting, strict=False)
        return len(fitting)

    def forward(
        self, x: Tensor, time: Tensor, inputs: dict[str, Tensor], keep: Tensor, coords: Tensor, repeats: int
    ) -> Tensor:
        """Velocity `[N, C]` of the latents `x [N, C]` of `B * repeats` objects with times `[B * repeats]`."""
        condition = self.condition_embedder(**inputs) * keep[:, None, None]
        condition = condition.repeat_interleave(repeats, dim=0)
        return self.generator(x.unsqueeze(0), 1000 * time, condition, coords)[0]


class LatentSource:
    """Normalised latents of stored objects, made when they are needed.

    Colours are relative to the mean colour of the object in its picture (`mean_color`), which the pipeline adds
    again: what a thousand voxels have in common need not pass through the noise.
    """

    def __init__(self, resolution: int, dataset: ProceduralDataset, count: int = 128) -> None:
        self.resolution = resolution
        self.mean, self.std = torch.zeros(1), torch.ones(1)
        generator, rng = torch.Generator().manual_seed(12), np.random.default_rng(12)
        batch = build_condition_batch(dataset, None, generator, count=count)
        values = torch.cat([latents for _, latents in self.batch(dataset, batch, rng)])
        self.mean, self.std = values.mean(0), values.std(0)

    def batch(
        self, dataset: ProceduralDataset, batch: dict[str, Tensor], rng: np.random.Generator
    ) -> list[tuple[Tensor, Tensor]]:
        """Voxels `[N, 4]` and normalised latents `[N, C]` of the objects of a condition batch."""
        seeds = dataset.array("seed", batch["object"]).tolist()
        colors = mean_color(batch["image"], batch["mask"])
        rows = zip(seeds, batch["mirrored"].tolist(), colors, strict=True)
        return [self.latents(seed, mirrored, color, rng) for seed, mirrored, color in rows]

    def latents(
        self, seed: int, mirrored: bool, color: Tensor, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """Voxels and normalised latents of one object whose picture has the mean colour `[3]`, -1..1."""
        item = make_object(seed)
        placement = Placement(mirrored=mirrored)
        noise = None
        if rng.random() < RAGGED:
            noise = torch.from_numpy(rng.normal(0, 0.35, (self.resolution,) * 3).astype(np.float32))
        coords = occupied_voxels(lambda p: item.sdf(placement.into_object(p)), self.resolution, noise=noise)
        sample = voxel_sample(item, *split_interior(coords), self.resolution, placement, with_normals=False)
        values = sample.latents()
        values[:, list(COLOR_CHANNELS)] -= color
        return sample.coords, (values - self.mean) / self.std


EARLY = 0.05
"""Times below this are logged apart: only there does the picture have to say what colours the object has."""


def sample_latent_times(count: int, generator: torch.Generator, shift: float = 12.0) -> Tensor:
    """Training times in 0..1: half as for the first stage, half shifted towards noise, `u / (u + shift (1 -
    u))`.

    A thousand voxels of one part show its colour through a lot of noise: at t = 0.1 their mean already tells
    it, and the condition is needed, and learned, only at earlier times.
    """
    u = torch.rand(count, generator=generator)
    shifted = u / (u + shift * (1 - u))
    return torch.where(torch.rand(count, generator=generator) < 0.5, shifted, sample_times(count, generator))


def flow_loss(
    stage: StructuredLatentStage,
    inputs: dict[str, Tensor],
    objects: list[tuple[Tensor, Tensor]],
    repeats: int,
    generator: torch.Generator,
    drop: float = 0.1,
) -> tuple[Tensor, float | None]:
    """Flow-matching loss with `repeats` independent noises and times for each object.

    Args:
        stage: the networks.
        inputs: condition images `[B, c, S, S]`.
        objects: voxels `[N, 4]` and normalised latents `[N, C]` of each of the B objects.
        repeats: noises and times an object.
        generator: source of times, noise and dropped conditions.
        drop: share of images without condition.

    Returns:
        the loss, and its value over voxels at early times, or None where there are none.
    """
    device = inputs["image"].device
    coords: list[Tensor] = []
    data: list[Tensor] = []
    for voxels, latents in [item for item in objects for _ in range(repeats)]:
        numbered = voxels.clone()
        numbered[:, 0] = len(coords)
        coords.append(numbered)
        data.append(latents)
    time = sample_latent_times(len(coords), generator)
    keep = (torch.rand(len(objects), generator=generator) >= drop).float()
    voxels, values = torch.cat(coords).to(device), torch.cat(data).to(device)
    noise = torch.randn(values.shape, generator=generator).to(device)
    weight = time.to(device)[voxels[:, 0].long()].unsqueeze(1)
    state = (1 - weight) * noise + weight * values
    with torch.autocast(device.type, torch.bfloat16):
        velocity = stage(state, time.to(device), inputs, keep.to(device), voxels, repeats)
    target = values - noise
    with torch.no_grad():
        early = weight[:, 0] < EARLY
        early_loss = float(mean_square(velocity[early], target[early])) if early.any() else None
    return mean_square(velocity, target), early_loss


def train(arguments: argparse.Namespace) -> None:
    """Runs, or resumes, the training that the command line describes."""
    from fastsam3d.config import config_directory

    config = load_model_config(config_directory() / "model" / f"{arguments.model}.yaml")
    device = torch.device(arguments.device)
    torch.manual_seed(arguments.seed)  # initial weights; this is a program of its own
    generator = torch.Generator().manual_seed(arguments.seed)
    dataset = ProceduralDataset(arguments.data)
    source = LatentSource(config.resolution, dataset)
    stage = StructuredLatentStage(config).to(device)
    output = Path(arguments.output)
    if arguments.embedder is not None:
        first = load_checkpoint(Path(arguments.embedder))
        if first is None:
            raise SystemExit(f"no checkpoint at {arguments.embedder}")
        fitted = stage.load_embedder(first.get("average", first["model"]))
        tqdm.write(f"condition embedder starts from the first stage's: {fitted} tensors")
    if arguments.start is not None:
        earlier = load_checkpoint(Path(arguments.start))
        if earlier is None:
            raise SystemExit(f"no checkpoint at {arguments.start}")
        stage.load_state_dict(earlier["average"])
    optimizer = OptimizerGroup(
        stage,
        arguments.learning_rate,
        arguments.matrix_learning_rate,
        keep=(
            "input_layer",
            "out_layer",
            "_embedder.mlp",
            "adaLN",
            "emb_layers",
            "idx_emb",
            "token",
            "pos_emb",
        ),
    )
    average = Average(stage, arguments.average)
    budget = Budget(arguments.minutes, arguments.steps)
    if (state := load_checkpoint(output / "checkpoint.pt")) is not None:
        stage.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        average.state, average.updates = state["average"], state["step"]
        generator.set_state(state["generator"])
        budget.step, budget.spent_seconds = state["step"], state["seconds"]

    def save() -> None:
        contents: dict[str, Any] = {
            "model": stage.state_dict(),
            "average": average.state,
            "optimizer": optimizer.state_dict(),
        }
        contents |= {"generator": generator.get_state(), "step": budget.step, "seconds": budget.spent_seconds}
        contents["constants"] = {"latent_mean": source.mean, "latent_std": source.std}
        save_checkpoint(output / "checkpoint.pt", contents)

    log = LossLog(output / "losses.jsonl")
    saved, running = budget.spent_seconds, {"loss": math.nan, "early": math.nan}
    bar = tqdm(total=100, unit="%", desc="structured-latent flow")
    while budget.progress < 1:
        rng = np.random.default_rng([arguments.seed, budget.step])
        batch = build_condition_batch(
            dataset, None, generator, count=arguments.images, image_size=config.image_size
        )
        inputs = {n: batch[n].to(device) for n in CONDITION_INPUTS}
        objects = source.batch(dataset, batch, rng)
        loss, early = flow_loss(stage, inputs, objects, arguments.noises, generator)
        loss.backward()
        norm = optimizer.step(cosine_factor(budget.progress))
        average.update(stage)
        budget.advance()
        for name, value in (("loss", float(loss.detach())), ("early", early)):
            old = running[name]
            if value is not None:
                running[name] = value if math.isnan(old) else 0.98 * old + 0.02 * value
        if budget.step % 10 == 0:
            log.write(step=budget.step, seconds=budget.spent_seconds, norm=norm, **running)
            bar.set_postfix({k: f"{v:.3f}" for k, v in running.items()} | {"step": budget.step})
        bar.update(100 * budget.progress - bar.n)
        if budget.spent_seconds - saved > 120:
            saved = budget.spent_seconds
            save()
    save()
    bar.close()


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="folder of shards made by fastsam3d.training.dataset")
    parser.add_argument("--start", default=None, help="checkpoint of an earlier run to start from")
    parser.add_argument("--output", required=True, help="run folder: checkpoint.pt and losses.jsonl")
    parser.add_argument(
        "--embedder", default=None, help="checkpoint of the first stage, to start its embedder from"
    )
    parser.add_argument("--model", default="mini")
    parser.add_argument("--minutes", type=float, default=None, help="length of the run, over all resumptions")
    parser.add_argument(
        "--steps", type=int, default=None, help="length of the run in steps, instead of minutes"
    )
    parser.add_argument("--images", type=int, default=4, help="images a step")
    parser.add_argument("--noises", type=int, default=2, help="noises and times an image")
    parser.add_argument("--learning-rate", type=float, default=8e-4, help="AdamW's peak")
    parser.add_argument(
        "--matrix-learning-rate", type=float, default=1.5e-3, help="Muon's peak; 0 switches it off"
    )
    parser.add_argument("--average", type=float, default=0.998, help="decay of the averaged weights")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    train(parser.parse_args(arguments))


if __name__ == "__main__":
    main()
