"""Finds what a preset computes in a run: evaluations, tokens and voxels, by the preset's own policies.

Some policies decide by what they see. They are therefore let loose on a real run, that of the shipped small model with
the steps, the time grid and the guidance interval of the model in question; guidance strength stays the small model's,
because with another its velocities would be no model's. The counts hold for that object; others differ a little.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from fastsam3d.acceleration.patching import temporarily
from fastsam3d.acceleration.presets import AccelerationConfig, load_preset
from fastsam3d.diffusion.passes import LAYOUT, Passes
from fastsam3d.diffusion.vocabulary import SPARSE_STRUCTURE, STAGES, STRUCTURED_LATENT
from fastsam3d.sam3d.models.config import ModelConfig


@dataclass(frozen=True)
class Plan:
    """Work that a preset does in one run.

    Attributes:
        passes: of the networks by stage, and under "layout" those of the layout alone, if any.
        steps, evaluations: by stage, and the evaluations that ran in full.
        tokens_kept: share of the latent stage's tokens that ran.
        voxels_kept: share of the voxels that is left.
        layout_passes: how many passes the layout made alone.
    """

    passes: dict[str, Passes]
    steps: dict[str, int]
    evaluations: dict[str, int]
    tokens_kept: float
    voxels_kept: float
    layout_passes: int


class Planner:
    """Finds the plans of presets.

    Args:
        model: whose steps are planned.
        pipeline: the stand-in that runs, by default the shipped small model.
        view: what it reconstructs: an object with `image`, `mask` and `pointmap`.
    """

    SEED = 1_000_000_007

    def __init__(self, model: ModelConfig, pipeline: Any = None, view: Any = None) -> None:
        self._model = model
        self._pipeline, self._view = pipeline, view

    def plan(self, acceleration: AccelerationConfig, voxels: float) -> Plan:
        """Runs the stand-in under a preset; raises UserError where the preset does not fit it.

        Args:
            acceleration: the preset.
            voxels: of the model's object, which decide where a technique has a limit of size; the stand-in's are fewer.
        """
        from fastsam3d.acceleration.handle import accelerate

        pipeline, view = self._stand_in()
        preset = load_preset(acceleration, _limits(acceleration, voxels))
        with _steps_of(self._model, pipeline), accelerate(pipeline, preset) as handle:
            pipeline.run(view.image, view.mask, seed=0, pointmap=view.pointmap, formats=())
            report = handle.report()
        stages = {stage: report.stages[stage] for stage in STAGES}
        return Plan(
            {name: report.passes[name] for name in (*STAGES, LAYOUT) if name in report.passes},
            {stage: done.conditional_computed + done.conditional_forecast for stage, done in stages.items()},
            {stage: done.evaluations for stage, done in stages.items()},
            stages[STRUCTURED_LATENT].tokens_kept,
            report.voxels_kept,
            stages[SPARSE_STRUCTURE].layout_evaluations,
        )

    def _stand_in(self) -> tuple[Any, Any]:
        if self._pipeline is None:
            from fastsam3d.sam3d.checkpoints.loading import load_pipeline

            self._pipeline = load_pipeline("mini")
        if self._view is None:
            from fastsam3d.procedural.samples import make_view

            self._view = make_view(self.SEED)
        return self._pipeline, self._view


def _limits(acceleration: AccelerationConfig, voxels: float) -> dict[str, Any]:
    """Changes size limits so that the small stand-in is treated as an object of so many voxels would be."""
    changes: dict[str, Any] = {}
    for group, settings in acceleration.settings.items():
        low, high = getattr(settings, "minimum_voxels", None), getattr(settings, "maximum_voxels", None)
        if low is not None and voxels >= low:
            changes[f"{group}.minimum_voxels"] = 0
        if high is not None and voxels >= high:
            changes[f"{group}.maximum_voxels"] = 1
    return changes


@contextmanager
def _steps_of(model: ModelConfig, pipeline: Any) -> Iterator[None]:
    first, second = (pipeline.models[name] for name in ("ss_generator", "slat_generator"))
    a, b = model.ss_sampler, model.slat_sampler
    with (
        temporarily(first, inference_steps=a.inference_steps, rescale_t=a.rescale_t),
        temporarily(first.reverse_fn, interval=tuple(a.interval)),
        temporarily(second, inference_steps=b.inference_steps, rescale_t=b.rescale_t),
        temporarily(second.reverse_fn, interval=tuple(b.interval)),
    ):
        yield
