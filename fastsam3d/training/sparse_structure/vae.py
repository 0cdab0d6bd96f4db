"""Trains the sparse-structure decoder of the mini model, with an encoder that exists for training only.

    python -m fastsam3d train sparse-structure-vae --data DIR --output RUN --minutes 12

The encoder is not shipped. `--keep-decoder` trains one for the shipped decoder, which stays as it is: what a later
training of the generator that starts from the shipped weights needs.

The target is soft occupancy, `sigmoid(-(sdf - dilation) / temperature)`, so that the logit's zero is a smooth surface.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastsam3d.sam3d.checkpoints.loading import model_config
from fastsam3d.sam3d.models.config import ModelConfig
from fastsam3d.sam3d.models.sparse_structure_decoder import ResBlock3d, SparseStructureDecoder, grid_to_tokens
from fastsam3d.training.data.data_source import open_dataset
from fastsam3d.training.loop import TrainingLoop
from fastsam3d.training.optimization import Budget, OptimizerGroup, cosine_factor, require_checkpoint
from fastsam3d.training.options import SparseStructureVaeOptions
from fastsam3d.training.shipped_weights import shipped_part

VOXEL = 1.0 / 32
DILATION = 0.35 * VOXEL
"""Surface offset below which a voxel centre counts as occupied, in grid units: thin parts survive."""
TEMPERATURE = 0.4 * VOXEL
"""Distance over which soft occupancy falls, in grid units."""


class SparseStructureEncoder(nn.Module):
    """Signed distances to a latent grid. `[B, 1, 32, 32, 32] -> mean, log variance, each [B, C, 8, 8, 8]`."""

    def __init__(self, latent_channels: int = 8, channels: tuple[int, int] = (32, 96)) -> None:
        super().__init__()
        self.input_layer = nn.Conv3d(1, channels[0], 4, stride=2, padding=1)
        self.block0 = ResBlock3d(channels[0])
        self.down = nn.Conv3d(channels[0], channels[1], 4, stride=2, padding=1)
        self.block1 = ResBlock3d(channels[1])
        self.out_layer = nn.Conv3d(channels[1], 2 * latent_channels, 3, padding=1)
        # A linear path from each 4x4x4 patch: the latent carries the coarse shape from the first step on.
        self.linear = nn.Conv3d(1, latent_channels, 4, stride=4)

    def forward(self, sdf: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the variance of the latents of signed distances in grid units."""
        scaled = (sdf / (4 * VOXEL)).clamp(-1.5, 1.5)
        h = self.block1(self.down(self.block0(self.input_layer(scaled))))
        mean, log_variance = self.out_layer(F.silu(h)).chunk(2, dim=1)
        return mean + self.linear(scaled), (log_variance - 4).clamp(-10, 4)


def soft_occupancy(sdf: Tensor) -> Tensor:
    """Occupancy target in 0..1 of signed distances in grid units."""
    return torch.sigmoid(-(sdf - DILATION) / TEMPERATURE)


def vae_loss(
    encoder: SparseStructureEncoder, decoder: SparseStructureDecoder, sdf: Tensor, noise: Tensor, kl_weight: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Reconstruction and Kullback-Leibler loss. `sdf [B, 1, R, R, R]`, `noise` with the latent's shape."""
    mean, log_variance = encoder(sdf)
    mean, log_variance = mean.float(), log_variance.float()
    latent = mean + torch.exp(0.5 * log_variance) * noise
    logits = decoder(grid_to_tokens(latent, decoder.patch)).float()
    weight = 1 + 4 * (sdf.abs() < 2.5 * VOXEL).float()
    reconstruction = F.binary_cross_entropy_with_logits(logits, soft_occupancy(sdf), weight, reduction="sum")
    reconstruction = reconstruction / weight.sum()
    kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
    occupied, target = logits > 0, sdf < DILATION
    iou = (occupied & target).sum() / (occupied | target).sum().clamp(min=1)
    return reconstruction + kl_weight * kl, {"reconstruction": reconstruction, "kl": kl, "iou": iou.float()}


@torch.no_grad()
def encode_latents(encoder: SparseStructureEncoder, sdf: Tensor, patch: int, batch: int = 64) -> Tensor:
    """Posterior means as shape tokens. `sdf [N, R, R, R]` -> `[N, T, C patch^3]`."""
    tokens = []
    for part in sdf.split(batch):
        with torch.autocast(part.device.type, torch.bfloat16):
            mean, _ = encoder(part.unsqueeze(1))
        tokens.append(grid_to_tokens(mean.float(), patch))
    return torch.cat(tokens)


def load_encoder(path: str | Path, config: ModelConfig) -> SparseStructureEncoder:
    """The trained encoder.

    Raises:
        UserError: there is no checkpoint.
    """
    state = require_checkpoint(Path(path), "train the sparse-structure VAE first")
    encoder = SparseStructureEncoder(config.ss_decoder.latent_channels)
    prefix = "encoder."
    encoder.load_state_dict({k[len(prefix) :]: v for k, v in state["model"].items() if k.startswith(prefix)})
    return encoder


def train(options: SparseStructureVaeOptions) -> None:
    """Runs, or resumes, the training that the options describe."""
    config = model_config(options.model)
    device = torch.device(options.device)
    generator = torch.Generator(device).manual_seed(options.seed)
    torch.manual_seed(options.seed)  # initial weights; this is a program of its own
    encoder = SparseStructureEncoder(config.ss_decoder.latent_channels).to(device)
    decoder = SparseStructureDecoder(**asdict(config.ss_decoder)).to(device)
    if options.keep_decoder:
        decoder.load_state_dict(shipped_part(options.model, "ss_decoder"))
        decoder.requires_grad_(False)
    both = nn.ModuleDict({"encoder": encoder, "decoder": decoder})
    both.to(memory_format=torch.channels_last_3d)
    optimizer = OptimizerGroup(encoder if options.keep_decoder else both, learning_rate=options.learning_rate)
    budget = Budget(options.minutes, options.steps)
    # The losses of single steps are logged: the intersection over union of a batch says enough by itself.
    loop = TrainingLoop("sparse-structure VAE", options.output, budget, both, optimizer, generator, fresh=1.0)
    dataset = open_dataset(options)
    side = config.resolution // 4
    for progress in loop.steps():
        sdf = dataset.sample_sdf(options.batch, generator).unsqueeze(1)
        shape = (len(sdf), config.ss_decoder.latent_channels, side, side, side)
        noise = torch.randn(shape, generator=generator, device=device)
        sdf = sdf.to(memory_format=torch.channels_last_3d)
        with torch.autocast(device.type, torch.bfloat16):
            loss, parts = vae_loss(encoder, decoder, sdf, noise, options.kl_weight)
        loss.backward()
        optimizer.step(cosine_factor(progress, warmup=0.03))
        loop.record(parts)
