"""Registers techniques: each names its settings, how its policy is made, and what it needs of a host.

Every family of models (`acceleration.family`) has one registry. It fills itself when it is first read.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from fastsam3d.acceleration.settings import GROUPS, TechniqueConfig


@dataclass(frozen=True)
class Technique:
    """A registered technique.

    Attributes:
        name: config group.
        config: its settings, a `TechniqueConfig` with a field `enabled`, or with switches only. A field `stages`
            lets the user choose among `stages`.
        kind: names the interface of the object that `make` returns. A family names its kinds; for diffusion see
            `fastsam3d.diffusion.vocabulary`.
        stages: kinds of stages that it can act on.
        make: makes the policy of one run from the settings; the kind says with which arguments. It returns None if the
            technique has nothing to decide in the run. It is called only if the technique is switched on and acts.
        advise: returns warnings about settings that are allowed but known to cost quality.
        needs: capabilities that a host must have, names from the family's `Rules.capabilities`.
        uses: further capabilities that it uses if a host offers them.
    """

    name: str
    config: type[TechniqueConfig]
    kind: str
    stages: tuple[str, ...]
    make: Callable[..., Any] | None = None
    advise: Callable[[Any], list[str]] = dataclasses.field(default=cast(Any, lambda config: []))
    needs: tuple[str, ...] = ()
    uses: tuple[str, ...] = ()

    def acts_on(self, config: Any) -> tuple[str, ...]:
        """Returns the stages on which it acts with these settings; none if it is switched off."""
        if not getattr(config, "enabled", True):
            return ()
        chosen = getattr(config, "stages", "both")
        return tuple(stage for stage in self.stages if chosen in ("both", stage))


class Registry(Mapping[str, Technique]):
    """Techniques of one family by config group, in order of registration.

    Args:
        capabilities: capabilities that a technique may need; other needs are refused.
        discover: imports the modules that register the family's own techniques. It is called once, before the registry
            is first read.
    """

    def __init__(self, capabilities: Mapping[str, Any], discover: Callable[[], None]) -> None:
        self._capabilities, self._discover = capabilities, discover
        self._techniques: dict[str, Technique] = {}
        self._discovered = False

    def register(self, technique: Technique) -> Technique:
        """Adds a technique under its config group.

        Raises:
            ValueError: another technique has the name, or it needs an unknown capability.
        """
        known = self._techniques.get(technique.name)
        if known is not None and known.config is not technique.config:
            raise ValueError(f"technique {technique.name!r} is registered already")
        if unknown := [need for need in (*technique.needs, *technique.uses) if need not in self._capabilities]:
            raise ValueError(
                f"technique {technique.name!r} needs {unknown[0]!r}; known are {', '.join(self._capabilities)}"
            )
        return self.replace(technique)

    def replace(self, technique: Technique) -> Technique:
        """Adds a technique, or replaces the technique of the same name."""
        self._techniques[technique.name] = technique
        GROUPS.setdefault(technique.config, technique.name)
        return technique

    def remove(self, name: str) -> None:
        """Removes a technique. Does nothing if there is no such technique."""
        self._techniques.pop(name, None)

    def _read(self) -> dict[str, Technique]:
        if not self._discovered:
            self._discovered = True  # first, because the imported modules may read the registry
            self._discover()
        return self._techniques

    def __getitem__(self, name: str) -> Technique:
        return self._read()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())
