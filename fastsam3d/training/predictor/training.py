"""Trains a predictor of attention maps on batches from anywhere: stored maps, or maps of prompts that are just made.

Loss and metric are those of GAP (Fast3D, ACM MM 2025): the divergence from the true shares of attention, and the
overlap of the sets of the most attended objects. An exponential mean of the weights is what a run ends with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from fastsam3d.errors import UserError
from fastsam3d.mllm.predictor.batch import PredictorBatch
from fastsam3d.mllm.predictor.files import save_predictor
from fastsam3d.mllm.predictor.network import REQUIRED, AttentionPredictor, PredictorConfig, seeded_predictor
from fastsam3d.training.loop import TrainingLoop
from fastsam3d.training.optimization import Average, Budget, OptimizerGroup, cosine_factor
from fastsam3d.training.options import PredictorOptions
from fastsam3d.training.predictor.losses import TOP, divergence, overlap

Batches = Callable[[int, int], tuple[PredictorBatch, Tensor]]
"""`(seed, step) -> ` inputs and the attention (B, N) that each object gets, up to a factor. The same seed and step give
the same batch, so that an interrupted run goes on as if it had not been."""
FILE = "predictor.safetensors"
"""Of the run's folder: what `fastsam3d.mllm.predictor.files.load_predictor` reads."""


def train(
    options: PredictorOptions,
    batches: Batches,
    held_out: Batches | None = None,
    config: PredictorConfig | None = None,
    notes: Mapping[str, str] | None = None,
) -> AttentionPredictor:
    """Runs, or resumes, a training, and writes the predictor that it ends with.

    Args:
        options: of the run.
        batches: what is learned from.
        held_out: what the predictor is measured with while it learns; None: it is not.
        config: sizes; `embedding` and `group_size` are those of the batches. None: the usual ones.
        notes: what the file of the predictor shall say, for instance its language model.

    Returns:
        The predictor with averaged weights, in evaluation mode.

    Raises:
        UserError: nothing can be learned from the batches, or a file cannot be written.
    """
    device = torch.device(options.device)
    first, _ = batches(options.seed, 0)
    sizes = {"group_size": first.visual.shape[2], "embedding": first.visual.shape[3]}
    config = replace(config or PredictorConfig(), **sizes)
    if first.boxes is None and config.boxes == REQUIRED:
        raise UserError("the batches have no boxes, and the predictor shall need them: set boxes to optional or unused")
    network = seeded_predictor(config, options.seed).to(device)
    generator = torch.Generator().manual_seed(options.seed)
    optimizer = OptimizerGroup(
        network, options.learning_rate, options.matrix_learning_rate, options.weight_decay, keep=("head",)
    )
    average = Average(network, options.average)
    budget = Budget(options.minutes, options.steps)
    loop = TrainingLoop("attention predictor", options.output, budget, network, optimizer, generator, average=average)
    for progress in loop.steps():
        step = loop.budget.step
        batch, target = batches(options.seed, step)
        batch, target = batch.to(device), target.to(device)
        # Drawn also where there are no boxes, so that runs with and without see the same numbers.
        blind = float(torch.rand((), generator=generator)) < options.without_boxes
        logits = network(batch.without_boxes() if blind and config.boxes != REQUIRED else batch)
        loss = divergence(logits, target, batch.present)
        loss.backward()
        optimizer.step(cosine_factor(progress, options.warmup), options.clip)
        average.update(network)
        loop.record({"divergence": loss, "overlap_5": overlap(logits.detach(), target, batch.present, 5)})
        if held_out is not None and (step + 1) % options.measure_every == 0:
            loop.write_log(**measure(averaged(network, average), held_out, options))
    final = averaged(network, average)
    save_predictor(final, Path(options.output) / FILE, {**(notes or {}), "steps": str(loop.budget.step)})
    return final


@torch.no_grad()
def measure(network: AttentionPredictor, held_out: Batches, options: PredictorOptions) -> dict[str, float]:
    """Divergence and overlaps on held-out batches, means over the batches."""
    device = torch.device(options.device)
    values: dict[str, list[float]] = {}
    for number in range(options.held_out_batches):
        batch, target = held_out(options.seed, number)
        batch, target = batch.to(device), target.to(device)
        logits = network(batch)
        found = {"held_out_divergence": divergence(logits, target, batch.present)}
        found |= {f"held_out_overlap_{k}": overlap(logits, target, batch.present, k) for k in TOP}
        for name, value in found.items():
            values.setdefault(name, []).append(float(value))
    return {name: sum(of_name) / len(of_name) for name, of_name in values.items()}


def averaged(network: AttentionPredictor, average: Average) -> AttentionPredictor:
    """A copy of the predictor with the averaged weights, in evaluation mode."""
    copied = seeded_predictor(network.config, 0).to(network.text_projection.weight.device)
    copied.load_state_dict(average.state)
    return copied.eval().requires_grad_(False)
