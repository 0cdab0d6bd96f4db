"""Which techniques can be on together. What cannot is refused before a pipeline is touched, with the way out."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from fastsam3d.errors import UserError
from fastsam3d.techniques import REGISTRY, Technique

STAGE_WORDS = {"sparse_structure": "the sparse-structure network", "structured_latent": "the latent network"}

ONE_A_STAGE = {
    "velocity": "decide when {network} runs",
    "evaluation": "decide how {network} is evaluated",
}
"""Kinds of techniques of which a stage can have one, and why."""
ONE_A_PIPELINE = {"voxels": "change the set of voxels", "steps": "set the number of steps"}


def refuse_clashes(settings: Mapping[str, Any]) -> None:
    """Checks that the techniques that are on can work together.

    Args:
        settings: by config group, one for each registered technique.

    Raises:
        UserError: two of them cannot; the message names both, says why, and what to switch off.
    """
    on = [(t, t.acts_on(settings[t.name])) for t in REGISTRY.values() if t.name in settings]
    on = [(technique, stages) for technique, stages in on if stages]
    for (first, first_stages), (second, second_stages) in itertools.combinations(on, 2):
        shared = [stage for stage in first_stages if stage in second_stages]
        reason = _clash(first, second, shared)
        if reason:
            raise UserError(
                f"{first.name} and {second.name} are both switched on and {reason}: "
                f"set {first.name}.enabled=false or {second.name}.enabled=false{_or_other_stages(first, second)}."
            )


def _clash(first: Technique, second: Technique, shared: list[str]) -> str | None:
    if first.kind != second.kind:
        return None
    if first.kind in ONE_A_PIPELINE:
        return f"both {ONE_A_PIPELINE[first.kind]}"
    if first.kind in ONE_A_STAGE and shared:
        return "both " + ONE_A_STAGE[first.kind].format(network=STAGE_WORDS[shared[0]])
    return None


def _or_other_stages(first: Technique, second: Technique) -> str:
    movable = [t.name for t in (first, second) if "stages" in {*t.config.describe()}]
    return f", or let {movable[0]}.stages be the other stage alone" if movable else ""
