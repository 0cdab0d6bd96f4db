"""Trains the structured-latent generator and its condition embedder on the latents of procedural objects.

    python -m fastsam3d train structured-latent-flow --data DIR --output RUN --minutes 40

Flow matching: `x_t = (1 - t) noise + t data`, target velocity `data - noise`, mean squared error over
voxels. The condition is zeroed for a tenth of the images, which trains the unconditional pass.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from fastsam3d.sam3d.checkpoints.loading import model_config
from fastsam3d.sam3d.models.build import build_condition_embedder
from fastsam3d.sam3d.models.config import ModelConfig
from fastsam3d.sam3d.models.structured_latent_generator import SparseResBlock, StructuredLatentGenerator
from fastsam3d.training.data.condition_batch import build_condition_batch
from fastsam3d.training.data.data_source import open_dataset
from fastsam3d.training.loop import TrainingLoop
from fastsam3d.training.optimization import (
    Average,
    Budget,
    OptimizerGroup,
    cosine_factor,
    mean_square,
    require_checkpoint,
)
from fastsam3d.training.options import StructuredLatentFlowOptions
from fastsam3d.training.replicas import Replicas
from fastsam3d.training.sparse_structure.flow import initialise, sample_times
from fastsam3d.training.structured_latent.latent_source import LatentSource

CONDITION_INPUTS = ("image", "rgb_image", "mask", "rgb_image_mask")
"""Inputs of the second stage's condition embedder."""
ANCHOR = 6.0
"""Size of the two opposite constants that keep the scale of the output's normalisation nearly constant."""


@torch.no_grad()
def begin_by_removing_noise(generator: StructuredLatentGenerator) -> None:
    """Lets the velocity begin at `-x`, which is most of the target `data - noise` at early times.

    The state reaches the output over the skip at full resolution: the first channels of the input layer hold it,
    the last block copies them, and two opposite constants beside them make the normalisation before the output
    layer nearly linear. What the transformer has to learn is then the data alone.

    Raises:
        ValueError: there is no skip at full resolution, which takes two residual blocks a level or more.
    """
    blocks = list(generator.out_blocks)
    last = cast(SparseResBlock, blocks[-1])
    if last.direction != 0:
        raise ValueError("num_io_res_blocks: 1 leaves no path at full resolution; the noise of a voxel cannot pass")
    state, width = generator.channels, generator.out_layer.in_features
    if width < state + 3:
        raise ValueError(f"io_channels: {width} channels cannot hold {state} latent channels and the constants")
    generator.input_layer.weight[:state] = torch.eye(state)
    generator.input_layer.bias[:state] = 0
    skip = cast(nn.Linear, last.skip_connection)
    skip.weight *= 0.1  # the other channels begin small, lest they change that scale
    skip.weight[: state + 2] = 0
    skip.weight[:state, width : width + state] = torch.eye(state)
    skip.bias[:state] = 0
    skip.bias[state], skip.bias[state + 1] = ANCHOR, -ANCHOR
    deviation = math.sqrt((2 * ANCHOR**2 + state) / width)
    generator.out_layer.weight[:, :state] = -deviation * torch.eye(state)


class StructuredLatentStage(nn.Module):
    """Condition embedder and generator, trained together."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.condition_embedder = build_condition_embedder(config.slat_condition_embedder)
        self.generator = StructuredLatentGenerator(**asdict(config.slat_generator))
        initialise(self)
        begin_by_removing_noise(self.generator)

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


EARLY = 0.05
"""Times below this are logged apart: only there does the picture have to say what colours the object has."""


def sample_latent_times(count: int, generator: torch.Generator, shift: float = 12.0) -> Tensor:
    """Training times in 0..1: half as for the first stage, half shifted towards noise, `u / (u + shift (1 -
    u))`.

    A thousand voxels of one part show its colour through a lot of noise: at t = 0.1 their mean already tells
    it, and the condition is needed, and learned, only at earlier times.
    """
    u = torch.rand(count, generator=generator, device=generator.device)
    shifted = u / (u + shift * (1 - u))
    half = torch.rand(count, generator=generator, device=generator.device) < 0.5
    return torch.where(half, shifted, sample_times(count, generator))


def repeated(coords: Tensor, values: Tensor, repeats: int) -> tuple[Tensor, Tensor]:
    """Every object `repeats` times in a row. `coords [N, 4]` and `values [N, C]` are grouped by object."""
    copies = torch.arange(repeats, device=coords.device).repeat_interleave(len(coords))
    coords, values = coords.repeat(repeats, 1), values.repeat(repeats, 1)
    coords[:, 0] = coords[:, 0] * repeats + copies.to(coords.dtype)
    order = coords[:, 0].argsort(stable=True)
    return coords[order], values[order]


def flow_loss(
    stage: StructuredLatentStage,
    inputs: dict[str, Tensor],
    coords: Tensor,
    latents: Tensor,
    repeats: int,
    generator: torch.Generator,
    drop: float = 0.1,
) -> tuple[Tensor, float | None]:
    """Flow-matching loss with `repeats` independent noises and times for each object.

    Args:
        stage: the networks.
        inputs: condition images `[B, c, S, S]`.
        coords: voxels `[N, 4]` of the B objects, grouped by object.
        latents: their normalised latents `[N, C]`.
        repeats: noises and times an object.
        generator: source of times, noise and dropped conditions.
        drop: share of images without condition.

    Returns:
        the loss, and its value over voxels at early times, or None where there are none.
    """
    device, draws = latents.device, generator.device
    images = len(inputs["image"])
    voxels, values = repeated(coords, latents, repeats)
    time = sample_latent_times(images * repeats, generator).to(device)
    keep = (torch.rand(images, generator=generator, device=draws) >= drop).float().to(device)
    noise = torch.randn(values.shape, generator=generator, device=draws).to(device)
    weight = time[voxels[:, 0].long()].unsqueeze(1)
    state = (1 - weight) * noise + weight * values
    with torch.autocast(device.type, torch.bfloat16):
        velocity = stage(state, time, inputs, keep, voxels, repeats)
    target = values - noise
    with torch.no_grad():
        early = weight[:, 0] < EARLY
        early_loss = float(mean_square(velocity[early], target[early])) if early.any() else None
    return mean_square(velocity, target), early_loss


def train(options: StructuredLatentFlowOptions) -> None:
    """Runs, or resumes, the training that the options describe.

    Raises:
        UserError: a checkpoint that it builds on is missing, or the run has no length.
    """
    config = model_config(options.model)
    device = torch.device(options.device)
    replicas = Replicas()
    torch.manual_seed(options.seed)  # initial weights; this is a program of its own
    seed = options.seed + 1_000_003 * replicas.number
    generator = torch.Generator(device).manual_seed(seed)
    dataset = open_dataset(options)
    source = LatentSource(config.resolution, dataset)
    stage = StructuredLatentStage(config).to(device)
    if options.embedder is not None:
        first = require_checkpoint(Path(options.embedder), "train the sparse-structure flow first")
        fitted = stage.load_embedder(first.get("average", first["model"]))
        tqdm.write(f"condition embedder starts from the first stage's: {fitted} tensors")
    if options.start is not None:
        stage.load_state_dict(require_checkpoint(Path(options.start), "leave --start out")["average"])
    optimizer = OptimizerGroup(
        stage,
        options.learning_rate,
        options.matrix_learning_rate,
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
    average = Average(stage, options.average)
    loop = TrainingLoop(
        "structured-latent flow",
        options.output,
        Budget(options.minutes, options.steps),
        stage,
        optimizer,
        generator,
        average=average,
        contents={"constants": {"latent_mean": source.mean, "latent_std": source.std}},
        writes=replicas.first,
        agree=replicas.agreed,
    )
    if loop.resumed and not replicas.first:
        generator.manual_seed(seed + loop.budget.step)  # the checkpoint holds the first process's state
    for progress in loop.steps():
        rng = np.random.default_rng([options.seed, replicas.number, loop.budget.step])
        batch = build_condition_batch(
            dataset, None, generator, count=options.images, image_size=config.image_size
        )
        inputs = {n: batch[n] for n in CONDITION_INPUTS}
        loss, early = flow_loss(stage, inputs, *source.batch(batch, rng), options.noises, generator)
        loss.backward()
        replicas.average_gradients(optimizer.parameters)
        optimizer.step(cosine_factor(progress))
        average.update(stage)
        loop.record({"loss": loss, "early": early})
    replicas.close()
