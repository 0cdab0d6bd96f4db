"""Operations of reconstructions that were not run: of untouched pipelines, and of planned runs of any size."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fastsam3d.diffusion.operations import object_flops
from fastsam3d.diffusion.passes import Passes
from fastsam3d.diffusion.vocabulary import SPARSE_STRUCTURE, STAGES
from fastsam3d.sam3d.models.config import ModelConfig
from fastsam3d.sam3d.models.flops import ModelFlops, VoxelCounts
from fastsam3d.sam3d.models.flow_matching import TIME_SCALE, time_grid

TERA = 1e12
DECODERS = {"mesh": "mesh_decode", "gaussian": "gaussian_decode"}
"""Formats and the stages whose networks decode them."""


@dataclass(frozen=True)
class RunFlops:
    """TFLOP of one reconstruction by stage, in the order in which they run."""

    stages: Mapping[str, float]

    @property
    def total(self) -> float:
        """All stages together, in TFLOP."""
        return sum(self.stages.values())


def planned_flops(
    model: Any,
    voxels: Tensor | float,
    passes: Mapping[str, Passes] | None = None,
    *,
    exact: Collection[str] = (),
    steps: Mapping[str, float] | None = None,
    formats: Sequence[str] = ("mesh",),
    layout: bool = True,
) -> RunFlops:
    """TFLOP of one reconstruction, stage by stage. Costs microseconds.

    What an accelerated run computed, its own report says: `acceleration.report().network_flops`. The formulas are the
    same (`fastsam3d.diffusion.operations`).

    Args:
        model: a native pipeline, or its `ModelConfig`.
        voxels: of the latent stage: `result.structure.coords` `[N, 4]` (its neighbours are then counted), or their
            number (a typical surface is then assumed).
        passes: by stage; None: those of the untouched pipeline at the model's own number of steps and guidance.
        exact: names of the exact savings that are on.
        steps: by stage, for which `time_tables` computes modulation; by default one a conditional pass.
        formats: what is decoded.
        layout: false where the run leaves the layout out.

    Returns:
        TFLOP (10^12, two a multiply-add) of condition embedders, both generators, and decoders; surface extraction,
        preprocessing, norms and activations are not counted.

    Example:
        >>> result = pipeline.run(image, mask)                                         # doctest: +SKIP
        >>> tflop = planned_flops(pipeline, result.structure.coords).total             # doctest: +SKIP
    """
    costs = ModelFlops(model if isinstance(model, ModelConfig) else model.config)
    counts = costs.counts(voxels) if isinstance(voxels, Tensor) else VoxelCounts.shell(float(voxels))
    own = passes or {stage: plain_passes(model, stage) for stage in STAGES}
    every = object_flops(costs, counts, own, exact, steps, layout)
    left_out = {stage for name, stage in DECODERS.items() if name not in formats}
    return RunFlops({name: value / TERA for name, value in every.items() if name not in left_out})


def plain_passes(model: Any, stage: str) -> Passes:
    """Passes of an untouched run: one a step, two where guidance is on. `model` as in `planned_flops`."""
    if isinstance(model, ModelConfig):
        sampler = model.ss_sampler if stage == SPARSE_STRUCTURE else model.slat_sampler
        times = time_grid(sampler.inference_steps, sampler.rescale_t)[:-1]
        low, high = sampler.interval
        guided = sum(low <= TIME_SCALE * time <= high for time in times) if sampler.strength > 0 else 0
        return Passes.full(len(times), guided)
    generator = model.models["ss_generator" if stage == SPARSE_STRUCTURE else "slat_generator"]
    times = generator.times()[:-1]
    return Passes.full(len(times), sum(generator.reverse_fn.is_guided(time) for time in times))
