"""Which techniques can be on together. What cannot is refused before a pipeline is touched, with the way out.

Different kinds compose: one policy that decides when a network runs, one that decides how, one that changes the voxels,
a control of the number of steps, and the exact savings underneath all of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from fastsam3d.errors import UserError
from fastsam3d.techniques import REGISTRY, Technique
from fastsam3d.techniques.base import SPARSE_STRUCTURE

NETWORKS = {"sparse_structure": "the sparse-structure network", "structured_latent": "the latent network"}

ONE_A_STAGE = {
    "velocity": "both decide when {network} runs",
    "evaluation": "both decide how {network} is evaluated",
    "blocks": "both decide which blocks of {network} run",
}
"""Kinds of techniques of which a stage can have one, and why."""
ONE_A_PIPELINE = {"voxels": "both change the set of voxels", "steps": "both set the number of steps"}
DISTILLED = "few_step_shortcut"


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
