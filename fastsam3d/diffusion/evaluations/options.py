"""Checks the options with which policies evaluate the network against what their techniques have declared.

What an option needs is attached only where a technique that is on declares it. An evaluation with an undeclared option
would be computed without it, or by a host that knows nothing of it.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fastsam3d.acceleration.registry import Technique
from fastsam3d.diffusion.capabilities import CAPABILITIES, RULES
from fastsam3d.diffusion.vocabulary import Evaluate, GuidedVelocity, Step, Trajectory, Velocity
from fastsam3d.errors import UserError

OPTIONS = ("tokens", "subset", "conditional_only", "layout_only")
"""Of `fastsam3d.diffusion.vocabulary.Evaluate`, named as the capabilities are."""
PARTS = ("tokens", "subset", "layout_only")
"""Those that name a part of the network's input: one at most makes sense in a call."""


class CheckedPolicy:
    """A velocity or evaluation policy whose calls of `evaluate` are checked.

    Args:
        policy: the policy of one run.
        trajectory: the run.
        technique: made the policy; named in messages.
        inside: further techniques whose policies evaluate through this one.
    """

    def __init__(self, policy: Any, trajectory: Trajectory, technique: Technique, *inside: Technique) -> None:
        self._policy, self._trajectory, self._technique = policy, trajectory, technique
        every = (technique, *inside)
        needed = frozenset(need for t in every for need in RULES.needs_in(t, trajectory.stage))
        self._declared = needed | (trajectory.offers & frozenset(use for t in every for use in t.uses))

    def velocity(self, x: Velocity, step: Step, evaluate: Evaluate) -> Velocity:
        """The policy's velocity, see `fastsam3d.diffusion.vocabulary.VelocityPolicy`."""
        return self._policy.velocity(x, step, self._checked(evaluate))

    def evaluate(self, x: Velocity, step: Step, evaluate: Evaluate) -> GuidedVelocity:
        """The policy's evaluation, see `fastsam3d.diffusion.vocabulary.EvaluationPolicy`."""
        return self._policy.evaluate(x, step, self._checked(evaluate))

    def _checked(self, evaluate: Evaluate) -> Evaluate:
        def call(x: Velocity, tokens: Tensor | None = None, **options: Any) -> GuidedVelocity:
            given = {"tokens": tokens, **options}
            # Left out where they ask for nothing: a host need not know an option that it does not offer.
            asked = {name: value for name, value in given.items() if value is not None and value is not False}
            self._check(list(asked))
            return evaluate(x, **asked)

        return call

    def _check(self, asked: list[str]) -> None:
        """Raises an error if an evaluation must not be called with the options `asked`.

        Raises:
            TypeError: there is no such option.
            UserError: it was not declared, is of the other stage, has no tokens to choose from, or contradicts another.
        """
        name, stage = self._technique.name, self._trajectory.stage
        for option in asked:
            call = f"{name} calls evaluate(x, {option}=...) in the {stage} stage"
            if option not in OPTIONS:
                raise TypeError(f"{call}: there is no such option; known are {', '.join(OPTIONS)}")
            only, text = CAPABILITIES[option].stage, CAPABILITIES[option].text
            if only not in (None, stage):
                raise UserError(
                    f"{call}: {text} are for the {only} stage. Call evaluate(x) where "
                    f"trajectory.stage is {stage!r}, or set {name}.enabled=false."
                )
            if option not in self._declared:
                raise UserError(
                    f"{call} and has not declared that it needs {text}: add needs=({option!r},) to "
                    f"its Technique, or set {name}.enabled=false."
                )
        if "tokens" in asked and self._trajectory.cells is None:
            raise UserError(
                f"{name} calls evaluate(x, tokens=...) in a run whose tokens are not known (several objects at once, "
                "or a network that does not pool voxels): call evaluate(x) where trajectory.cells is None, or set "
                f"{name}.enabled=false."
            )
        if len(parts := [option for option in asked if option in PARTS]) > 1:
            raise UserError(
                f"{name} calls evaluate(x, {'=..., '.join(parts)}=...), which name different parts of the network's "
                f"input: give one of them, or set {name}.enabled=false."
            )
