"""What a preset computes of a run: evaluations, tokens and voxels, by the preset's own policies.

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
from fastsam3d.diffusion.report import Report
from fastsam3d.diffusion.vocabulary import SPARSE_STRUCTURE, STAGES
from fastsam3d.sam3d.models.config import ModelConfig
from fastsam3d.savings import Passes


@dataclass(frozen=True)
class Plan:
    """Passes of each stage and the share of voxels that is left."""

    passes: dict[str, Passes]
    voxels_kept: float
    layout_passes: int


def passes_of(report: Report, stage: str) -> Passes:
    """Passes of a stage that a report counted; those over part of the tokens with their share."""
    done = report.stages[stage]
    share, conditional, unconditional = done.tokens_kept, done.conditional_computed, done.unconditional_computed
    return Passes(conditional, unconditional, share * conditional, share * unconditional)


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
        layout = report.stages[SPARSE_STRUCTURE].layout_evaluations
        return Plan({stage: passes_of(report, stage) for stage in STAGES}, report.voxels_kept, layout)

    def _stand_in(self) -> tuple[Any, Any]:
        if self._pipeline is None:
            from fastsam3d.sam3d.checkpoints.loading import load_pipeline

            self._pipeline = load_pipeline("mini")
        if self._view is None:
            from fastsam3d.procedural.samples import make_view

            self._view = make_view(self.SEED)
        return self._pipeline, self._view


def _limits(acceleration: AccelerationConfig, voxels: float) -> dict[str, Any]:
    """Limits of size under which the stand-in is treated as an object of so many voxels would be."""
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
