"""Samples several objects at once, each with a policy of its own, so that none decides for another.

A policy may look at norms and errors to decide whether the network runs. Over a batch such a number would mix the
objects, and the result of one would depend on its company. Here every object keeps its own policy; only the network
runs for all of them together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastsam3d.diffusion.vocabulary import Evaluate, GuidedVelocity, Step, Velocity, VelocityPolicy
from fastsam3d.errors import OneAtATime


def batch_size(x: Velocity) -> int:
    """Number of objects in a state, the first dimension of its tensors."""
    return next(iter(x.values())).shape[0]


class BatchedPolicy:
    """One velocity policy for each object of a batch.

    The first policy of a step that asks for the network has it run on the whole batch, whose states are all known;
    those that ask after it get their rows of the same answer.

    Args:
        policies: fresh policies of one kind, one for each object.
    """

    def __init__(self, policies: Sequence[VelocityPolicy]) -> None:
        self._policies = list(policies)

    def velocity(self, x: Velocity, step: Step, evaluate: Evaluate) -> Velocity:
        """Velocities of all objects, row by row as their own policies give them.

        Raises:
            OneAtATime: a policy evaluates the network in part, which rows of a batch cannot do apart.
        """
        answers = _Answers(x, evaluate)
        rows = []
        for index, policy in enumerate(self._policies):
            state = _row(x, index)
            rows.append(policy.velocity(state, step, answers.to(index, state)))
        return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}


class _Answers:
    """The network's answer to a batch, computed when it is first needed and once with the same passes."""

    def __init__(self, x: Velocity, evaluate: Evaluate) -> None:
        self._x, self._evaluate = x, evaluate
        self._guided: dict[bool, GuidedVelocity] = {}  # by whether the unconditional pass was left out

    def to(self, index: int, state: Velocity) -> Evaluate:
        """Returns the `evaluate` of one object of the batch, at its own state."""

        def evaluate(
            x: Velocity, tokens: Tensor | None = None, *, conditional_only: bool = False, **options: Any
        ) -> GuidedVelocity:
            if x is not state or tokens is not None or options:
                raise OneAtATime("a technique that is on asks for more than the whole state of a step")
            if conditional_only not in self._guided:
                whole = not conditional_only
                answered = self._evaluate(self._x) if whole else self._evaluate(self._x, conditional_only=True)
                self._guided[conditional_only] = answered
            answer = self._guided[conditional_only]
            delta = None if answer.delta is None else _row(answer.delta, index)
            guided = None if answer.guided is None else _row(answer.guided, index)
            return GuidedVelocity(_row(answer.conditional, index), delta, guided=guided)

        return evaluate


def _row(x: Velocity, index: int) -> Velocity:
    return {name: value[index : index + 1] for name, value in x.items()}
