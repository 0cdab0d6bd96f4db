"""Checks which techniques can be switched on together, and on which model. The model is changed only after that.

A family's `Rules` say which techniques clash. The checks and their messages here are the same for all families.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastsam3d.acceleration.registry import Registry, Technique
from fastsam3d.errors import UserError


@dataclass(frozen=True)
class Capability:
    """A function of a host that a technique may need.

    Attributes:
        text: its description in messages, as the object of "needs".
        stage: the kind of stage that it belongs to; None if it can belong to all.
    """

    text: str
    stage: str | None = None


@dataclass(frozen=True)
class Support:
    """A kind of technique that another kind of technique needs.

    Attributes:
        kind: another technique of this kind has to act on one of the same stages.
        missing: text that says what is missing without it; `{stage}` is replaced by the stage in words.
        example: a technique of this kind, for the message.
    """

    kind: str
    missing: str
    example: str


@dataclass(frozen=True)
class Rules:
    """Says which techniques of one family cannot be on together.

    Attributes:
        capabilities: by name.
        stages: words for each kind of stage, such as "the latent network".
        one_a_stage: kinds of techniques of which a stage can have only one, with the reason; `{stage}` is replaced by
            the stage in words.
        one_a_model: kinds of techniques of which a model can have only one, with the reason.
        builds_on: the support that each kind of technique needs.
        clash: a function `(first, second, shared stages) -> reason` that says why these two cannot be on together, or
            returns None. It is called in both orders.
    """

    capabilities: Mapping[str, Capability]
    stages: Mapping[str, str]
    one_a_stage: Mapping[str, str] = field(default_factory=dict)
    one_a_model: Mapping[str, str] = field(default_factory=dict)
    builds_on: Mapping[str, Support] = field(default_factory=dict)
    clash: Callable[[Technique, Technique, Sequence[str]], str | None] = lambda first, second, shared: None

    def needs_in(self, technique: Technique, stage: str) -> tuple[str, ...]:
        """Returns the needs of a technique that apply to a kind of stage."""
        return tuple(need for need in technique.needs if self.capabilities[need].stage in (None, stage))


def refuse_clashes(registry: Registry, rules: Rules, settings: Mapping[str, Any]) -> None:
    """Checks that the techniques that are switched on can work together.

    Args:
        registry: of the family.
        rules: of the family.
        settings: by config group, one for each registered technique.

    Raises:
        UserError: two of them cannot, or one lacks its support. The message names them, gives the reason, and says what
            to switch off or on.
    """
    acting = [(t, t.acts_on(settings[t.name])) for t in registry.values() if t.name in settings]
    active = [(technique, stages) for technique, stages in acting if stages]
    for (first, first_stages), (second, second_stages) in itertools.combinations(active, 2):
        shared = [stage for stage in first_stages if stage in second_stages]
        reason = _clash(rules, first, second, shared)
        if reason:
            raise UserError(
                f"{first.name} and {second.name} are both switched on and {reason}: set {first.name}.enabled=false or "
                f"{second.name}.enabled=false{_other_stages(first, second)}."
            )
    for technique, stages in active:
        support = rules.builds_on.get(technique.kind)
        if support is not None and not any(
            other.kind == support.kind and set(stages) & set(others) for other, others in active
        ):
            raise UserError(
                f"{technique.name} is switched on and {support.missing.format(stage=rules.stages[stages[0]])}: switch "
                f"on a technique that does, for instance {support.example}.enabled=true, or set "
                f"{technique.name}.enabled=false."
            )


def refuse_what_a_host_lacks(registry: Registry, rules: Rules, host: Any, settings: Mapping[str, Any]) -> None:
    """Checks that a model's host offers all capabilities that the techniques which are switched on need.

    Args:
        registry: of the family.
        rules: of the family.
        host: has `name`, `offers(stage kind) -> names of capabilities` and `refusals() -> {(stage kind, capability):
            reason}` for what this very model cannot offer.
        settings: by config group.

    Raises:
        UserError: it does not; the message names technique and host, and what to switch off.
    """
    refusals = host.refusals()
    for technique in registry.values():
        acting = technique.acts_on(settings[technique.name])
        needed = {stage: rules.needs_in(technique, stage) for stage in acting}
        lacking = {s: [need for need in needs if need not in host.offers(s)] for s, needs in needed.items()}
        lacking = {stage: needs for stage, needs in lacking.items() if needs}
        if lacking:
            stage, needs = next(iter(lacking.items()))
            raise UserError(
                f"{technique.name} needs {rules.capabilities[needs[0]].text} in the {stage} stage, which {host.name} "
                f"does not offer: set {_way_out(technique, settings, lacking)}."
            )
        refused = {s: refusals[s, need] for s, needs in needed.items() for need in needs if (s, need) in refusals}
        for reason in refused.values():
            raise UserError(
                f"{technique.name} cannot be attached to this pipeline: {reason}. Set "
                f"{_way_out(technique, settings, refused)}."
            )


def _way_out(technique: Technique, settings: Mapping[str, Any], unfit: Collection[str]) -> str:
    """Names the setting to change for a technique that cannot act on the stages `unfit`."""
    fit = [stage for stage in technique.acts_on(settings[technique.name]) if stage not in unfit]
    choice = fit and hasattr(settings[technique.name], "stages")
    return f"{technique.name}.enabled=false" + (f", or {technique.name}.stages={fit[0]}" if choice else "")


def _clash(rules: Rules, first: Technique, second: Technique, shared: Sequence[str]) -> str | None:
    """Returns the reason why two techniques cannot be on together; None where they can."""
    if first.kind == second.kind and first.kind in rules.one_a_model:
        return rules.one_a_model[first.kind]
    if not shared:
        return None
    if first.kind == second.kind and first.kind in rules.one_a_stage:
        return rules.one_a_stage[first.kind].format(stage=rules.stages[shared[0]])
    return rules.clash(first, second, shared) or rules.clash(second, first, shared)


def _other_stages(first: Technique, second: Technique) -> str:
    movable = next((t for t in (first, second) if "stages" in t.config.describe() and len(t.stages) > 1), None)
    return f", or let {movable.name}.stages be the other stage alone" if movable else ""
