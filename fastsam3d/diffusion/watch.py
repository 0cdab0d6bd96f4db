"""Notices what is attached in vain: stages that nobody evaluates through it, step counts that nobody asks for."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from fastsam3d.acceleration.settings import AccelerationWarning
from fastsam3d.diffusion.host import Host
from fastsam3d.diffusion.policies import Policies
from fastsam3d.diffusion.stage_runner import StageRunner


class Watch:
    """Looks at every finished run of one pipeline.

    Args:
        name: of the acceleration, for messages.
        host: of the pipeline.
        policies: of the techniques that are switched on.
        runners: by name of stage.
    """

    def __init__(self, name: str, host: Host, policies: Policies, runners: Mapping[str, StageRunner]) -> None:
        self._name, self._host, self._policies, self._runners = name, host, policies, runners
        self._unseen: list[str] = []
        self._has_warned: set[str] = set()

    def finished(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Looks at a run that has ended well.

        Args:
            method: of the pipeline, that made the object.
            args, kwargs: that it was called with.

        Warns:
            AccelerationWarning: once, about stages of which no evaluation has been seen since the acceleration was
                attached; and once about step counts that the host does not take.
        """
        skipped = self._host.skips(method, args, kwargs)
        unseen = [stage for stage, runner in self._runners.items() if not runner.has_evaluated]
        self._unseen = [stage for stage in unseen if stage not in skipped]
        for text in self.notes():
            kind = text.partition(" ")[0]
            if kind not in self._has_warned:
                self._has_warned.add(kind)
                warnings.warn(f"{self._name}: {text}", AccelerationWarning, stacklevel=4)

    def notes(self) -> list[str]:
        """What does nothing, in words; empty where all is as it should be."""
        lines = []
        # A stage that a later run has evaluated is seen after all.
        unseen = [stage for stage in self._unseen if not self._runners[stage].has_evaluated]
        if unseen:
            lines.append(
                f"no evaluation of {' and '.join(unseen)} was seen in a finished run, and nothing is saved there: its "
                "sampler or network is wrapped, was exchanged, or runs in a mode that goes past what is attached. "
                "Accelerate the pipeline with its own networks, and again after they are exchanged."
            )
        for technique, stages in self._ignored().items():
            lines.append(
                f"{technique} sets no number of steps in {' and '.join(stages)}: {self._host.name} does not run "
                f"as many as `runner.steps` gives. Set {technique}.enabled=false, or let its `attach_sampler` ask."
            )
        return lines

    def without_effect(self) -> frozenset[str]:
        """Techniques that would set the number of steps, and nothing else, and were ignored wherever they act."""
        ignored = self._ignored()
        return frozenset(
            name
            for name, stages in ignored.items()
            if any(t.name == name for kind in self._host.stages.values() for t in self._policies.acting("steps", kind))
            and not any(self._runners[s].shortcut for s in stages)
            and all(s in stages for s, kind in self._host.stages.items() if name in self._controls(kind))
        )

    def _ignored(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for stage, runner in self._runners.items():
            if runner.steps_ignored:
                for name in self._controls(self._host.stages[stage]):
                    found.setdefault(name, []).append(stage)
        return found

    def _controls(self, kind: str) -> Sequence[str]:
        return self._policies.set_steps(kind)
