"""What the benchmark can run: presets of the acceleration, and the control of plain fewer steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from fastsam3d.errors import UserError

STAGES = {"nfe_ss": "ss_generator", "nfe_slat": "slat_generator"}
CONTROL = "fewer_steps"
CONTROL_PARTNER = "balanced"


@dataclass(frozen=True)
class Method:
    """A row of the benchmark: an acceleration preset with overrides. "off" leaves the pipeline untouched."""

    name: str
    preset: str
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def attached(self, pipeline: Any) -> Any:
        """Context manager inside which the pipeline runs with this method."""
        if self.preset == "off":
            return nullcontext()
        from fastsam3d.acceleration import accelerate

        return accelerate(pipeline, self.preset, **self.overrides)


@contextmanager
def counted_evaluations(pipeline: Any) -> Iterator[dict[str, int]]:
    """Counts, from zero, the network evaluations of both stages, conditional and unconditional ones alike.

    It watches the networks themselves and not what a technique says of itself. An evaluation on a part of the
    tokens counts as one.
    """
    counts = dict.fromkeys(STAGES, 0)

    def count_into(column: str) -> Any:
        def count(_module: Any, _arguments: Any) -> None:
            counts[column] += 1

        return count

    backbones = {column: pipeline.models[name].reverse_fn.backbone for column, name in STAGES.items()}
    handles = [backbones[column].register_forward_pre_hook(count_into(column)) for column in STAGES]
    try:
        yield counts
    finally:
        for handle in handles:
            handle.remove()


def evaluations_of_steps(generator: Any, steps: int) -> int:
    """Network evaluations of plain sampling in `steps` steps: one a step, two where guidance is on."""
    times = step_times(steps, generator.rescale_t)
    return steps + sum(generator.reverse_fn.is_guided(time) for time in times[:-1])


def step_times(steps: int, rescale: float) -> list[float]:
    """The steps + 1 times of the sampler (SAM 3D Objects architecture, section 4.1)."""
    from fastsam3d.models.flow_matching import time_grid

    return time_grid(steps, rescale)


def matched_steps(generator: Any, evaluations: int) -> int:
    """The fewest plain steps that take at least `evaluations` network evaluations.

    Numbers of steps that put one exactly on the upper edge of the guidance interval are passed over: guidance
    then acts over a long step and disturbs the layout, and a control deserves its best form. Never more than
    the generator's own number of steps.
    """
    edge = generator.reverse_fn.interval[1] / 1000
    for steps in range(1, generator.inference_steps):
        on_edge = any(abs(time - edge) < 1e-9 for time in step_times(steps, generator.rescale_t))
        if evaluations_of_steps(generator, steps) >= evaluations and not on_edge:
            return steps
    return generator.inference_steps


def fewer_steps_method(pipeline: Any, counts: Mapping[str, int]) -> Method:
    """The control: the exact tier, and the fewest plain steps with at least `counts` evaluations a stage."""
    steps = {column: matched_steps(pipeline.models[name], counts[column]) for column, name in STAGES.items()}
    overrides = {
        "fewer_steps": {
            "enabled": True,
            "sparse_structure_steps": steps["nfe_ss"],
            "structured_latent_steps": steps["nfe_slat"],
        }
    }
    return Method(CONTROL, "exact", overrides)


def resolve_methods(names: tuple[str, ...]) -> list[str]:
    """Checked names in order, "off" first and added where it is missing, since it is the reference."""
    from fastsam3d.config import preset_names

    known = dict.fromkeys(["off", *preset_names(), CONTROL])
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UserError(f"bench: unknown method {unknown[0]!r}; known methods: {', '.join(known)}")
    return list(dict.fromkeys(["off", *names]))


@contextmanager
def guided(pipeline: Any, strength: float | None) -> Iterator[None]:
    """Both stages at another guidance strength; null keeps the model's own.

    Where the strength is given latent by latent only the shape's is set: layout wants weaker guidance than
    shape.
    """
    saved = []
    try:
        for name in STAGES.values() if strength is not None else ():
            reverse = pipeline.models[name].reverse_fn
            saved.append((reverse, reverse.strength))
            own = reverse.strength
            reverse.strength = {**own, "shape": strength} if isinstance(own, Mapping) else strength
        yield
    finally:
        for reverse, own in saved:
            reverse.strength = own
