"""Which techniques can be on together, and on which pipeline. What cannot is refused before a pipeline is touched.

Different kinds compose: one policy that decides when a network runs, one that decides how, one that changes the voxels,
a control of the number of steps, and the exact savings underneath all of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from fastsam3d.diffusion.techniques import REGISTRY, Technique
from fastsam3d.diffusion.vocabulary import CAPABILITIES, FIRST_STAGE_ONLY, SPARSE_STRUCTURE
from fastsam3d.errors import UserError

NETWORKS = {"sparse_structure": "the sparse-structure network", "structured_latent": "the latent network"}

ONE_A_STAGE = {
    "velocity": "both decide when {network} runs",
    "evaluation": "both decide how {network} is evaluated",
    "blocks": "both decide which blocks of {network} run",
}
"""Kinds of techniques of which a stage can have one, and why."""
ONE_A_PIPELINE = {"voxels": "both change the set of voxels", "steps": "both set the number of steps"}
DISTILLED = "few_step_shortcut"
INSIDE = frozenset({"layout_only", "subset", "block_stack"})
"""Needs of techniques that keep or leave out something inside a network."""


def working_inside(stage: str, settings: Mapping[str, Any]) -> list[str]:
    """Techniques that are on and work inside the network of a stage, by config group."""
    active = [t for t in REGISTRY.values() if stage in t.acts_on(settings[t.name])]
    return [t.name for t in active if INSIDE & set(t.needs)]


def refuse_clashes(settings: Mapping[str, Any]) -> None:
    """Checks that the techniques that are on can work together.

    Args:
        settings: by config group, one for each registered technique.

    Raises:
        UserError: two of them cannot, or one lacks what it builds on; the message names them, says why, and what to
            switch off or on.
    """
    acting = [(t, t.acts_on(settings[t.name])) for t in REGISTRY.values() if t.name in settings]
    on = [(technique, stages) for technique, stages in acting if stages]
    for (first, first_stages), (second, second_stages) in itertools.combinations(on, 2):
        shared = [stage for stage in first_stages if stage in second_stages]
        reason = _clash(first, second, shared) or _clash(second, first, shared)
        if reason:
            raise UserError(
                f"{first.name} and {second.name} are both switched on and {reason}: set {first.name}.enabled=false or "
                f"{second.name}.enabled=false{_other_stages(first, second)}."
            )
    for technique, stages in on:
        if technique.kind == "layout" and not any(
            other.kind == "velocity" and set(stages) & set(others) for other, others in on
        ):
            raise UserError(
                f"{technique.name} is switched on and nothing forecasts steps of {NETWORKS[stages[0]]}: switch on a "
                f"technique that does, for instance step_caching.enabled=true, or set {technique.name}.enabled=false."
            )


def refuse_what_a_host_lacks(host: Any, settings: Mapping[str, Any]) -> None:
    """Checks that a pipeline's host offers what the techniques that are on need of it.

    Args:
        host: a `fastsam3d.diffusion.hosts.Host`.
        settings: by config group.

    Raises:
        UserError: it does not; the message names technique and host, and what to switch off.
    """
    for technique in REGISTRY.values():
        stages = technique.acts_on(settings[technique.name])
        missing = {stage: _missing(technique, stage, host) for stage in stages}
        lacking = [stage for stage in stages if missing[stage]]
        if lacking:
            fit = [stage for stage in stages if not missing[stage]]
            choice = fit and hasattr(settings[technique.name], "stages")
            chosen = f", or {technique.name}.stages={fit[0]}" if choice else ""
            raise UserError(
                f"{technique.name} needs {CAPABILITIES[missing[lacking[0]][0]]} in the {lacking[0]} stage, which "
                f"{host.name} does not offer: set {technique.name}.enabled=false{chosen}."
            )
    for name, reason in host.refusals().items():
        if settings[name].enabled:
            raise UserError(f"{name} cannot be attached to this pipeline: {reason}. Set {name}.enabled=false.")


def _missing(technique: Technique, stage: str, host: Any) -> list[str]:
    """What a technique needs in a stage and the host does not offer there."""
    needed = [need for need in technique.needs if stage == SPARSE_STRUCTURE or need not in FIRST_STAGE_ONLY]
    return [need for need in needed if need not in host.capabilities.get(stage, ())]


def _clash(first: Technique, second: Technique, shared: list[str]) -> str | None:
    """Why `first` cannot be on with `second`; asked in both orders."""
    if first.kind == second.kind and first.kind in ONE_A_PIPELINE:
        return ONE_A_PIPELINE[first.kind]
    if not shared:
        return None
    network = NETWORKS[shared[0]]
    if first.kind == second.kind and first.kind in ONE_A_STAGE:
        return ONE_A_STAGE[first.kind].format(network=network)
    if first.name == DISTILLED and SPARSE_STRUCTURE in shared and second.kind in ("velocity", "blocks", "evaluation"):
        return f"the distilled mode of {network} has neither steps to spare nor guidance"
    if first.kind == "blocks" and second.kind == "velocity":
        return f"both reuse what {network} did at earlier steps"
    if first.kind == "blocks" and second.name == "token_carving":
        return f"the change of the blocks of {network} that the one reuses is that of all tokens, which the other lacks"
    if "subset" in first.needs and second.kind in ("evaluation", "layout"):
        return f"{first.name} runs {network} on some tokens alone, which {second.name} cannot follow"
    return None


def _other_stages(first: Technique, second: Technique) -> str:
    movable = next((t for t in (first, second) if "stages" in t.config.describe() and len(t.stages) > 1), None)
    return f", or let {movable.name}.stages be the other stage alone" if movable else ""
