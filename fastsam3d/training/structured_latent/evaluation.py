"""Quality of the second stage alone: latents sampled at the true voxels of held-out objects.

    python -m fastsam3d train structured-latent-quality --vae VAE --flow RUN/checkpoint.pt --objects 8

Three rows: `sampled` (with the object's own picture), `shuffled` (with the picture of the next object, the control that
shows what the picture contributes) and `encoded` (the encoder's latents, the ceiling).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from fastsam3d.procedural import HELD_OUT_SEED
from fastsam3d.procedural.objects import ProceduralObject
from fastsam3d.sam3d.checkpoints.loading import model_config
from fastsam3d.sam3d.models.config import ModelConfig
from fastsam3d.sam3d.models.flow_matching import ClassifierFreeGuidance, FlowMatching
from fastsam3d.training.optimization import require_checkpoint
from fastsam3d.training.options import StructuredLatentQualityOptions
from fastsam3d.training.structured_latent.autoencoder import StructuredLatentAutoencoder, load_autoencoder
from fastsam3d.training.structured_latent.data import VoxelSample, object_sample
from fastsam3d.training.structured_latent.flow import CONDITION_INPUTS, StructuredLatentStage


def load_stage(path: str | Path, config: ModelConfig) -> tuple[StructuredLatentStage, dict[str, Tensor]]:
    """The averaged networks of a flow run and the statistics of its latents.

    Raises:
        UserError: there is no checkpoint.
    """
    state = require_checkpoint(Path(path), "train the structured-latent flow first")
    stage = StructuredLatentStage(config)
    stage.load_state_dict(state["average"])
    return stage.eval(), state["constants"]


@torch.no_grad()
def sample_latents(
    stage: StructuredLatentStage,
    config: ModelConfig,
    condition: Tensor,
    coords: Tensor,
    constants: dict[str, Tensor],
    seed: int,
) -> Tensor:
    """De-normalised latents `[N, C]` at voxels `[N, 4]`, with the pipeline's sampler and noise by place."""
    sampler = config.slat_sampler
    guided = ClassifierFreeGuidance(
        stage.generator, sampler.strength, (sampler.interval[0], sampler.interval[1])
    )
    flow = FlowMatching(guided, sampler.inference_steps, sampler.rescale_t)
    side = config.resolution
    noise = torch.randn(
        (side, side, side, len(constants["latent_mean"])), generator=torch.Generator().manual_seed(seed)
    )
    x, y, z = coords[:, 1:].long().unbind(dim=1)
    feats = flow.sample(noise[x, y, z].unsqueeze(0), condition, coords)[0]
    return feats * constants["latent_std"] + constants["latent_mean"]


@torch.no_grad()
def surface_errors(
    autoencoder: StructuredLatentAutoencoder, latents: Tensor, sample: VoxelSample, item: ProceduralObject
) -> dict[str, float]:
    """Errors of the decoded surface.

    Returns:
        `distance`: mean distance of vertices to the true surface, object units; `color`: mean absolute colour error
        of vertices, 0..1.
    """
    decoder = autoencoder.decoder
    surface = decoder.extract(decoder(latents, sample.coords), sample.interior)
    if not len(surface.vertices):
        return {"distance": float("nan"), "color": float("nan")}
    color = (surface.attributes[:, :3] - item.color(surface.vertices)).abs().mean()
    return {"distance": float(item.sdf(surface.vertices).abs().mean()), "color": float(color)}


def evaluate(options: StructuredLatentQualityOptions) -> dict[str, dict[str, float]]:
    """Means over the objects, by row."""
    from fastsam3d.procedural.samples import make_view
    from fastsam3d.sam3d.pipeline.preprocessing import prepare_condition

    config = model_config(options.model)
    autoencoder = load_autoencoder(options.vae, config)
    stage, constants = load_stage(options.flow, config)
    samples, items, conditions = [], [], []
    for seed in range(HELD_OUT_SEED, HELD_OUT_SEED + options.objects):
        view = make_view(seed)
        inputs = prepare_condition(view.image, view.mask, view.pointmap, image_size=config.image_size)
        with torch.no_grad():
            conditions.append(stage.condition_embedder(**{n: inputs[n] for n in CONDITION_INPUTS}))
        samples.append(object_sample(seed, config.resolution))
        items.append(view.object)
    rows: dict[str, list[dict[str, float]]] = {"sampled": [], "shuffled": [], "encoded": []}
    for number, (sample, item) in enumerate(zip(tqdm(samples), items, strict=True)):
        for row, shift in (("sampled", 0), ("shuffled", 1)):
            condition = conditions[(number + shift) % len(conditions)]
            latents = sample_latents(stage, config, condition, sample.coords, constants, seed=number)
            rows[row].append(surface_errors(autoencoder, latents, sample, item))
        with torch.no_grad():
            latents = autoencoder.encode(sample)
        rows["encoded"].append(surface_errors(autoencoder, latents, sample, item))
    return {
        name: {key: round(float(np.nanmean([r[key] for r in records])), 5) for key in records[0]}
        for name, records in rows.items()
    }
