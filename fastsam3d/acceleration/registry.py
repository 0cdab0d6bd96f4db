"""Registers techniques: each names its settings, its policy maker and what it needs of a host."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from fastsam3d.acceleration.settings import GROUPS, TechniqueConfig


@dataclass(frozen=True)
class Technique:
    """A registered technique.

    Attributes:
        name: config group.
        config: its settings, a `TechniqueConfig` with a field `enabled`, or with switches only. A field `stages`
            (see `stages_setting`) lets the user choose among `stages`.
        kind: "velocity", "evaluation", "voxels", "steps", "blocks", "layout" or "exact": which interface `make`
            returns. "blocks" is `fastsam3d.diffusion.vocabulary.BlockPolicy`; "layout" wraps a velocity policy and is
            made with it, `(config, trajectory, policy) -> policy`; "steps" has no policy, its settings say all.
        stages: stages it can act on.
        make: `(config, trajectory) -> policy` with the state of one run, None where the technique has no say in
            it; for voxel policies `config -> policy`. Asked only where the technique is on and acts on the stage.
        advise: warnings about settings that are allowed but known to cost quality.
        needs: what it asks of a host beyond whole evaluations, names from `CAPABILITIES`.
    """

    name: str
    config: type[TechniqueConfig]
    kind: str
    stages: tuple[str, ...]
    make: Callable[..., Any] | None = None
    advise: Callable[[Any], list[str]] = dataclasses.field(default=cast(Any, lambda config: []))
    needs: tuple[str, ...] = ()

    def acts_on(self, config: Any) -> tuple[str, ...]:
        """Stages on which it acts with these settings; none where it is off."""
        if not getattr(config, "enabled", True):
            return ()
        chosen = getattr(config, "stages", "both")
        return tuple(stage for stage in self.stages if chosen in ("both", stage))


REGISTRY: dict[str, Technique] = {}
"""Techniques by config group, in order of registration."""


def register(technique: Technique) -> Technique:
    """Adds a technique under its config-group name.

    Raises:
        ValueError: the name is taken by another technique.
    """
    if technique.name in REGISTRY and REGISTRY[technique.name].config is not technique.config:
        raise ValueError(f"technique {technique.name!r} is registered already")
    REGISTRY[technique.name] = technique
    GROUPS.setdefault(technique.config, technique.name)
    return technique
