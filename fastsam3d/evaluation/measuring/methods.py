"""Methods that the benchmark can run: presets, preset files, and the control of plain fewer steps."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fastsam3d.acceleration.family import DEFAULT_FAMILY
from fastsam3d.errors import UserError
from fastsam3d.evaluation.measuring.counters import STAGES

OFF, EXACT, ALL = "off", "exact", "all"
LIMIT = "limit"
"""Not a preset: both stages integrated until they converge (`fastsam3d.evaluation.measuring.limit`)."""
OTHER_SEED = "other_seed"
"""The row of "off" with other noise."""
REFERENCES = (OTHER_SEED, LIMIT)
"""Rows that are no methods: their seconds are not compared."""
CONTROL, CONTROL_PARTNER = "fewer_steps", "balanced"
ORDER = ("off", "exact", "paper_release", "paper", "accurate", "balanced", "balanced_12", "fast")
"""Of the rows of `all`; the others follow by kind and name, and the controls come last."""


@dataclass(frozen=True)
class Method:
    """A row of the benchmark.

    Attributes:
        name: of the row.
        preset: an acceleration preset or preset file; "off" leaves the pipeline untouched, "limit" converges it.
        overrides: changed settings of the preset.
        matched_to: of a control: the method whose network evaluations it takes, object by object.
        optional: left out, and said so, where the pipeline cannot run it.
        family: of models whose preset is meant.
    """

    name: str
    preset: str
    overrides: Mapping[str, Any] = field(default_factory=dict)
    matched_to: str | None = None
    optional: bool = False
    family: str = DEFAULT_FAMILY

    @contextmanager
    def attached(self, pipeline: Any) -> Iterator[Any]:
        """Accelerates the pipeline inside a `with` block; gives the `Acceleration`, or None for "off"."""
        if self.preset == OFF:
            yield None
            return
        if self.preset == LIMIT:
            from fastsam3d.evaluation.measuring.limit import converged

            with converged(pipeline) as acceleration:
                yield acceleration
            return
        from fastsam3d.acceleration.handle import accelerate
        from fastsam3d.diffusion.vocabulary import AccelerationWarning

        with warnings.catch_warnings():
            # What settings cost is what is being measured; advice about them would only break the progress bar.
            warnings.simplefilter("ignore", AccelerationWarning)
            acceleration = accelerate(pipeline, self.preset, **self.overrides)
        with acceleration:
            yield acceleration

    def settings(self) -> dict[str, Any]:
        """All settings as plain values; UserError where they are not possible."""
        if self.preset in (OFF, LIMIT):
            return {}
        from fastsam3d.acceleration.presets import load_preset

        return load_preset(self.preset, self.overrides, self.family).to_dict()

    def matched(self, pipeline: Any, counts: Mapping[str, int]) -> Method:
        """This control with the fewest plain steps that take at least `counts` evaluations in each stage."""
        steps = {column: matched_steps(pipeline.models[name], counts[column]) for column, name in STAGES.items()}
        chosen = {
            "enabled": True,
            "sparse_structure_steps": steps["nfe_ss"],
            "structured_latent_steps": steps["nfe_slat"],
        }
        return replace(self, overrides={CONTROL: chosen})


def resolve_methods(names: Sequence[str]) -> list[Method]:
    """The methods of names in order, "off" first and added where it is missing, since it is the reference.

    A name is a preset, a preset file, `fewer_steps` (the control matched to `balanced`), `fewer_steps@NAME` (matched
    to any other method), or `all`. What a control is matched to is run as well.

    Raises:
        UserError: an unknown name, a file that is no preset, two methods of one name, or the name of a reference row.
    """
    from fastsam3d.acceleration.presets import KINDS, preset_info
    from fastsam3d.basics.config_files import preset_names

    presets = [name for name in preset_names() if name != CONTROL]
    kinds = list(KINDS)
    rest = [preset_info(name) for name in presets if name not in ORDER]
    rest.sort(key=lambda info: (kinds.index(info.kind) if info.kind in kinds else len(kinds), info.name))
    every = [*(name for name in ORDER if name in presets), *(info.name for info in rest)]
    found: dict[str, Method] = {OFF: Method(OFF, OFF)}
    wanted = [part for name in names for part in ([*every, CONTROL, f"{CONTROL}@fast"] if name == ALL else [name])]
    for name in wanted:
        method = _method(name, presets, {Path(n).stem: n for n in wanted if _is_file(n)})
        if found.get(method.name, method) != method:
            raise UserError(f"bench: two methods are called {method.name!r}: rename the preset file {name}")
        if method.matched_to is not None and method.matched_to not in found:
            partner = _method(method.matched_to, presets, {Path(n).stem: n for n in wanted if _is_file(n)})
            found[partner.name] = partner
        found[method.name] = method
    # A preset of the package that this pipeline cannot run does not stop a run of all of them.
    listed = set(names) | {OFF, EXACT}
    return [replace(m, optional=ALL in names and m.name not in listed) for m in found.values()]


def _is_file(name: str) -> bool:
    return name.endswith((".yaml", ".yml"))


def _method(name: str, presets: Sequence[str], files: Mapping[str, str]) -> Method:
    base, _, partner = name.partition("@")
    if base == CONTROL:
        if partner == CONTROL or partner.startswith(f"{CONTROL}@"):
            raise UserError(f"bench: {name!r} is a control of a control: match it to a preset")
        return Method(name, EXACT, matched_to=partner or CONTROL_PARTNER)
    if name not in presets and name in files:
        name = files[name]
    if _is_file(name):
        method = Method(Path(name).stem, name)
        if method.name in REFERENCES:
            raise UserError(
                f"bench: a row of the benchmark itself is called {method.name!r}: rename the preset file {name}"
            )
        method.settings()  # says now what is wrong with the file
        return method
    if name not in presets:
        known = ", ".join([ALL, *presets, CONTROL, f"{CONTROL}@NAME"])
        raise UserError(f"bench: unknown method {name!r}; known methods: {known}, or a preset file (.yaml)")
    return Method(name, name)


def evaluations_of_steps(generator: Any, steps: int) -> int:
    """Network evaluations of plain sampling in `steps` steps: one a step, two where guidance is on."""
    times = step_times(steps, generator.rescale_t)
    return steps + sum(generator.reverse_fn.is_guided(time) for time in times[:-1])


def step_times(steps: int, rescale: float) -> list[float]:
    """The steps + 1 times of the sampler (docs/facts.md, section S4.1)."""
    from fastsam3d.sam3d.models.flow_matching import time_grid

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


def guidance_of(pipeline: Any) -> float | str:
    """Guidance strength as the tables name it: a number, or "2/1" where the stages differ."""
    own = [pipeline.models[name].reverse_fn.strength for name in STAGES.values()]
    if own[0] == own[1] and isinstance(own[0], (int, float)):
        return own[0]
    texts = [f"{s:g}" if isinstance(s, (int, float)) else str(dict(s)) for s in own]
    return "/".join(dict.fromkeys(texts))
