"""Floating-point operations of whole reconstructions, stage by stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from fastsam3d.diffusion.vocabulary import SPARSE_STRUCTURE, STAGES, STRUCTURED_LATENT
from fastsam3d.evaluation.operations.plan import passes_of
from fastsam3d.sam3d.models.config import ModelConfig
from fastsam3d.sam3d.models.flops import ModelFlops, VoxelCounts
from fastsam3d.sam3d.models.flow_matching import TIME_SCALE, time_grid
from fastsam3d.savings import Passes, sampling_flops

if TYPE_CHECKING:
    from fastsam3d.diffusion.report import Report

TERA = 1e12
EXACT_GROUP = "exact."


@dataclass(frozen=True)
class RunFlops:
    """TFLOP of one reconstruction by stage, in the order in which they run."""

    stages: Mapping[str, float]

    @property
    def total(self) -> float:
        """All stages together, in TFLOP."""
        return sum(self.stages.values())


def run_flops(
    model: Any,
    voxels: Tensor | float,
    report: Report | None = None,
    *,
    formats: Sequence[str] = ("mesh",),
    layout: bool = True,
) -> RunFlops:
    """TFLOP of one reconstruction, stage by stage. Costs microseconds.

    Args:
        model: a native pipeline, or its `ModelConfig`.
        voxels: what the structure stage found: `result.structure.coords` `[N, 4]` (its neighbours are then counted),
            or their number (a typical surface is then assumed).
        report: `acceleration.report()` of **this one run** (attach anew, or `reset_report()` before it). None: the
            untouched pipeline at the model's own number of steps and guidance.
        formats: what was decoded.
        layout: false where the run was told to leave the layout out.

    Returns:
        TFLOP (10^12, two a multiply-add) of condition embedders, both generators, and decoders; surface extraction,
        preprocessing, norms and activations are not counted.

    Example:
        >>> with accelerate(pipeline, "balanced") as acceleration:                     # doctest: +SKIP
        ...     result = pipeline.run(image, mask)
        ...     tflop = run_flops(pipeline, result.structure.coords, acceleration.report()).total
    """
    config = model if isinstance(model, ModelConfig) else model.config
    costs = ModelFlops(config)
    counts = VoxelCounts.of(voxels) if isinstance(voxels, Tensor) else VoxelCounts.shell(float(voxels))
    exact: frozenset[str] = frozenset()
    if report is not None:
        names = (name for name in report.techniques if name.startswith(EXACT_GROUP))
        exact = frozenset(name.removeprefix(EXACT_GROUP) for name in names)
        counts = _scaled(counts, report.voxels_kept)
    parts = {
        SPARSE_STRUCTURE: costs.sparse_structure(layout),
        STRUCTURED_LATENT: costs.structured_latent(counts),
    }
    sampled = {}
    for stage in STAGES:
        if report is None:
            passes, runs = plain_passes(model, stage), 1
        else:
            passes, runs = passes_of(report, stage), report.stages[stage].runs
        sampled[stage] = sampling_flops(parts[stage], passes, exact, runs)
    stages = {
        "ss_condition": sum(costs.embedding(SPARSE_STRUCTURE).values()),
        SPARSE_STRUCTURE: sampled[SPARSE_STRUCTURE],
        "ss_decode": costs.structure_decoder(),
        "slat_condition": sum(costs.embedding(STRUCTURED_LATENT).values()),
        STRUCTURED_LATENT: sampled[STRUCTURED_LATENT],
    }
    if "mesh" in formats:
        stages["mesh_decode"] = costs.mesh_decoder(counts)
    if "gaussian" in formats:
        stages["gaussian_decode"] = costs.gaussian_decoder(counts)
    return RunFlops({name: value / TERA for name, value in stages.items()})


def plain_passes(model: Any, stage: str) -> Passes:
    """Passes of an untouched run: one a step, two where guidance is on. `model` as in `run_flops`."""
    if isinstance(model, ModelConfig):
        sampler = model.ss_sampler if stage == SPARSE_STRUCTURE else model.slat_sampler
        times = time_grid(sampler.inference_steps, sampler.rescale_t)[:-1]
        low, high = sampler.interval
        guided = sum(low <= TIME_SCALE * time <= high for time in times) if sampler.strength > 0 else 0
        return Passes.full(len(times), guided)
    generator = model.models["ss_generator" if stage == SPARSE_STRUCTURE else "slat_generator"]
    times = generator.times()[:-1]
    return Passes.full(len(times), sum(generator.reverse_fn.is_guided(time) for time in times))


def _scaled(counts: VoxelCounts, share: float) -> VoxelCounts:
    return VoxelCounts(counts.voxels * share, counts.cells * share, counts.neighbours, counts.window)
