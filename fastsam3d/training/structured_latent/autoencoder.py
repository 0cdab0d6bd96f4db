"""The mesh decoder with its fixed encoder, what it is trained to minimise, and how well it reconstructs.

The decoder's first eight channels are learned as signed distances in cubes of the surface grid, raised by
one cube side over the grid's resolution: extraction subtracts 1 / resolution from them (docs/facts.md, section S8.2).
Otherwise it does not depend on their scale, except that unknown corners count as one cube away.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from fastsam3d.procedural import HELD_OUT_SEED
from fastsam3d.sam3d.models.config import ModelConfig
from fastsam3d.sam3d.models.structured_latent_decoder import MeshDecoder
from fastsam3d.training.optimization import require_checkpoint
from fastsam3d.training.structured_latent.data import VoxelSample, corner_columns, object_sample

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
    from fastsam3d.evaluation.metrics.surfaces import compare_surfaces, sample_surface

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


def load_autoencoder(path: str | Path, config: ModelConfig) -> StructuredLatentAutoencoder:
    """The trained autoencoder, for evaluation.

    Raises:
        UserError: there is no checkpoint.
    """
    state = require_checkpoint(Path(path), "train the structured-latent VAE first")
    model = StructuredLatentAutoencoder(config)
    model.load_state_dict(state["model"])
    return model.eval()
