"""Trains the sparse-structure generator and its condition embedder on the latents of a trained encoder.

    python -m fastsam3d train sparse-structure-flow --data DIR --vae RUN/checkpoint.pt --output RUN --minutes 90

Flow matching: `x_t = (1 - t) noise + t data`, target velocity `data - noise`, mean squared error, shape and layout
weighted alike; the condition is zeroed for a tenth of the images, which trains the unconditional pass.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from fastsam3d.sam3d.checkpoints.loading import model_config
from fastsam3d.sam3d.models.build import build_condition_embedder
from fastsam3d.sam3d.models.config import ModelConfig
from fastsam3d.sam3d.models.sparse_structure_generator import (
    LATENT_CHANNELS,
    POSE_LATENTS,
    SHAPE,
    SparseStructureGenerator,
)
from fastsam3d.training.data.condition_batch import build_condition_batch
from fastsam3d.training.data.data_source import Dataset, open_dataset
from fastsam3d.training.loop import TrainingLoop
from fastsam3d.training.optimization import (
    Average,
    Budget,
    OptimizerGroup,
    cosine_factor,
    load_checkpoint,
    mean_square,
    save_checkpoint,
)
from fastsam3d.training.options import SparseStructureFlowOptions
from fastsam3d.training.shipped_weights import shipped_part
from fastsam3d.training.sparse_structure.vae import SparseStructureEncoder, encode_latents, load_encoder

CONDITION_INPUTS = ("image", "rgb_image", "mask", "rgb_image_mask", "pointmap", "rgb_pointmap")
"""Inputs of the condition embedder that a condition batch holds."""
POSE_TARGETS = {
    "6drotation_normalized": "rotation6d",
    "translation": "translation",
    "scale": "scale",
    "translation_scale": "translation_scale",
}
"""Name of the dataset's target behind each layout latent."""
POSE_CONSTANTS = {
    "6drotation_normalized": "rotation",
    "translation": "translation",
    "scale": "scale",
    "translation_scale": "translation_scale",
}
"""Name of each layout latent in the `pose` section of a model's file."""


class SparseStructureStage(nn.Module):
    """Condition embedder and generator, trained together."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.condition_embedder = build_condition_embedder(config.ss_condition_embedder)
        self.generator = SparseStructureGenerator(**asdict(config.ss_generator))
        initialise(self)

    def forward(self, state: dict[str, Tensor], time: Tensor, inputs: dict[str, Tensor], keep: Tensor) -> Any:
        """Velocities, by latent.

        Args:
            state: noisy latents `[B * repeats, T, C]`, by name.
            time: of each, 0..1.
            inputs: condition images `[B, c, S, S]`.
            keep: `[B]`, 0 where the condition is dropped and 1 elsewhere.
        """
        condition = self.condition_embedder(**inputs) * keep[:, None, None]
        return self.generator(state, 1000 * time, condition)


def initialise(module: nn.Module) -> None:
    """Xavier weights, zero time modulation and zero output layers: every block begins as the identity."""
    for name, child in module.named_modules():
        if isinstance(child, nn.Linear):
            nn.init.xavier_uniform_(child.weight)
            if child.bias is not None:
                nn.init.zeros_(child.bias)
            if "adaLN_modulation" in name or name.endswith("out_layer"):
                nn.init.zeros_(child.weight)


def sample_times(count: int, generator: torch.Generator) -> Tensor:
    """Training times in 0..1: four fifths logit-normal around 0.31, one fifth uniform."""
    device = generator.device
    normal = torch.sigmoid(torch.randn(count, generator=generator, device=device) - 0.8)
    uniform = torch.rand(count, generator=generator, device=device)
    return torch.where(torch.rand(count, generator=generator, device=device) < 0.2, uniform, normal)


class SparseStructureTargets:
    """Standardised latents of every training object, with the constants that undo the standardisation.

    Shape latents are divided by their root mean square per channel (folded into the decoder on export, so no
    shift); layout latents are standardised per component (the model's pose constants).
    """

    def __init__(
        self, dataset: Dataset, encoder: SparseStructureEncoder, patch: int, cache: Path | None = None
    ) -> None:
        sdf = dataset.sdf_bytes()
        known = load_checkpoint(cache) if cache is not None else None
        parts = [known["latents"]] if known is not None else []
        done = parts[0].shape[1] if parts else 0
        for start in tqdm(range(done, len(sdf), 512), desc="encoding"):
            values = dataset.to_sdf(sdf[start : start + 512])
            both = [encode_latents(encoder, v, patch).half() for v in (values, values.flip(1))]
            parts.append(torch.stack(both))
        self.latents = torch.cat(parts, dim=1)[:, : len(sdf)]  # [2 (plain, mirrored), N, T, C]
        if cache is not None and done < len(sdf):
            save_checkpoint(cache, {"latents": self.latents})
        per_channel = self.latents[0, :4096].float().unflatten(-1, (-1, patch**3))
        self.shape_scale = per_channel.square().mean(dim=(0, 1, 3)).sqrt()  # [latent channels]
        self.token_scale = self.shape_scale.repeat_interleave(patch**3)
        self.pose_mean: dict[str, Tensor] = {}
        self.pose_std: dict[str, Tensor] = {}

    def fit_pose(self, batches: list[dict[str, Tensor]]) -> None:
        """Means and standard deviations of the layout latents over some batches."""
        for latent, target in POSE_TARGETS.items():
            values = torch.cat([batch[target] for batch in batches])
            self.pose_mean[latent] = values.mean(dim=0)
            self.pose_std[latent] = values.std(dim=0).clamp(min=1e-3)

    def keep_constants(self, config: ModelConfig) -> None:
        """Takes the constants of a trained model: its decoder expects latents of unit size, as they come."""
        self.shape_scale = torch.ones_like(self.shape_scale)
        self.token_scale = torch.ones_like(self.token_scale)
        for latent, name in POSE_CONSTANTS.items():
            for values, kind in ((self.pose_mean, "mean"), (self.pose_std, "std")):
                known = torch.tensor(getattr(config.pose, f"{name}_{kind}"), dtype=torch.float32)
                values[latent] = known.expand(LATENT_CHANNELS[latent]).clone()

    def state(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Data latents `[B, T, C]` of a condition batch (object rows and mirror flags in the batch)."""
        shape = self.latents[batch["mirrored"].long(), batch["object"]].float() / self.token_scale
        pose = {
            latent: ((batch[target] - self.pose_mean[latent]) / self.pose_std[latent]).unsqueeze(1)
            for latent, target in POSE_TARGETS.items()
        }
        return {SHAPE: shape, **pose}

    def constants(self) -> dict[str, Any]:
        """Constants with which an export undoes the standardisation."""
        return {"shape_scale": self.shape_scale, "pose_mean": self.pose_mean, "pose_std": self.pose_std}


def flow_loss(
    stage: nn.Module,
    inputs: dict[str, Tensor],
    data: dict[str, Tensor],
    repeats: int,
    generator: torch.Generator,
    drop: float = 0.1,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Flow-matching loss with `repeats` independent noises and times for each image.

    The condition is embedded, and its keys and values projected, once for all of an image's noises.
    """
    images = data[SHAPE].shape[0]
    count = images * repeats
    device = data[SHAPE].device
    time = sample_times(count, generator).to(device)
    keep = (torch.rand(images, generator=generator, device=generator.device) >= drop).float().to(device)
    state, target = {}, {}
    for name in sorted(data):
        values = data[name].repeat_interleave(repeats, dim=0)
        noise = torch.randn(values.shape, generator=generator, device=generator.device).to(device)
        weight = time[:, None, None]
        state[name] = (1 - weight) * noise + weight * values
        target[name] = values - noise
    with torch.autocast(device.type, torch.bfloat16):
        velocity = stage(state, time, inputs, keep)
    shape = mean_square(velocity[SHAPE], target[SHAPE])
    layout = torch.stack([mean_square(velocity[n], target[n]) for n in POSE_LATENTS[:3]]).mean()
    auxiliary = mean_square(velocity["translation_scale"], target["translation_scale"])
    return shape + layout + 0.1 * auxiliary, {"shape": shape, "layout": layout}


def train(options: SparseStructureFlowOptions) -> None:
    """Runs, or resumes, the training that the options describe.

    Raises:
        UserError: a checkpoint that it builds on is missing.
    """
    config = model_config(options.model)
    device = torch.device(options.device)
    torch.manual_seed(options.seed)  # initial weights; this is a program of its own
    generator = torch.Generator(device).manual_seed(options.seed)
    encoder = load_encoder(options.vae, config).to(device, memory_format=torch.channels_last_3d)
    dataset = open_dataset(options)
    output = Path(options.output)
    # On a GPU all latents are encoded in seconds; on a CPU they are kept for the next start.
    cache = output / "latents.pt" if device.type == "cpu" else None
    targets = SparseStructureTargets(dataset, encoder, config.ss_decoder.patch, cache)
    stage = SparseStructureStage(config)
    if options.start_shipped:
        targets.keep_constants(config)
        stage.generator.load_state_dict(shipped_part(options.model, "ss_generator"))
        stage.condition_embedder.load_state_dict(shipped_part(options.model, "ss_generator", "ss_condition_embedder"))
    else:
        fitting = torch.Generator(device).manual_seed(1)
        targets.fit_pose([build_condition_batch(dataset, None, fitting, count=512) for _ in range(8)])
    stage.to(device)
    optimizer = OptimizerGroup(
        stage,
        options.learning_rate,
        options.matrix_learning_rate,
        keep=("latent_mapping", "_embedder.mlp", "adaLN", "point_proj", "pos_emb", "idx_emb", "token"),
    )
    average = Average(stage, options.average)
    network = torch.compile(stage) if options.compile else stage
    loop = TrainingLoop(
        "sparse-structure flow",
        output,
        Budget(options.minutes, options.steps),
        stage,
        optimizer,
        generator,
        average=average,
        contents={"constants": targets.constants()},
        log_every=20,
        save_seconds=180,
    )
    for progress in loop.steps():
        batch = build_condition_batch(dataset, None, generator, count=options.images, photographic=options.photographic)
        inputs = {n: batch[n] for n in CONDITION_INPUTS}
        loss, parts = flow_loss(network, inputs, targets.state(batch), options.noises, generator)
        loss.backward()
        optimizer.step(cosine_factor(progress))
        average.update(stage)
        loop.record(parts)
