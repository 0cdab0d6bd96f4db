"""Several objects sampled at once, each with a policy of its own: what one decides is no other's business.

A policy may look at norms and errors to decide whether the network runs. Over a batch such a number would mix the
objects, and the result of one would depend on its company. Here every object keeps its own policy; only the network
runs for all of them together.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

from fastsam3d.techniques.base import Evaluate, GuidedVelocity, Step, Velocity, VelocityPolicy


def batch_size(x: Velocity) -> int:
    """Number of objects in a state, the first dimension of its tensors."""
    return next(iter(x.values())).shape[0]


class BatchedPolicy:
    """One velocity policy for each object of a batch.

    At each step every policy is first tried on a copy of itself, without the network. Those that need it then get
    their rows of one evaluation of the whole batch.

    Args:
        policies: fresh policies of one kind, one for each object.
    """

    def __init__(self, policies: Sequence[VelocityPolicy]) -> None:
        self._policies = list(policies)

    def velocity(self, x: Velocity, step: Step, evaluate: Evaluate) -> Velocity:
        """Velocities of all objects, row by row as their own policies give them.

        Raises:
            NotImplementedError: a policy evaluates the network in part, which rows of a batch cannot do apart.
        """
        states = [_row(x, index) for index in range(len(self._policies))]
        results: list[Velocity | None] = []
        for index, state in enumerate(states):
            trial = copy.deepcopy(self._policies[index])
            try:
                results.append(trial.velocity(state, step, _ask))
                self._policies[index] = trial
            except _Needed:
                results.append(None)
        if any(result is None for result in results):
            # For all of them, also where only some need it: the network's input then always has the same shape.
            guided = evaluate(x)
            for index, result in enumerate(results):
                if result is None:
                    answer = _Answer(states[index], _guided_row(guided, index))
                    results[index] = self._policies[index].velocity(states[index], step, answer)
        return _joined([result for result in results if result is not None])


class _Needed(Exception):
    """A policy wants the network to run."""


def _ask(x: Velocity, tokens: Tensor | None = None, **options: Any) -> NoReturn:
    raise _Needed


class _Answer:
    """The network's answer to one object, computed with those of the others."""

    def __init__(self, state: Velocity, guided: GuidedVelocity) -> None:
        self._state, self._guided = state, guided

    def __call__(self, x: Velocity, tokens: Tensor | None = None, **options: Any) -> GuidedVelocity:
        if x is not self._state or tokens is not None or options:
            raise NotImplementedError("a technique that is on asks for more than the whole state of a step")
        return self._guided


def _row(x: Velocity, index: int) -> Velocity:
    return {name: value[index : index + 1] for name, value in x.items()}


def _guided_row(guided: GuidedVelocity, index: int) -> GuidedVelocity:
    delta = None if guided.delta is None else _row(guided.delta, index)
    return GuidedVelocity(_row(guided.conditional, index), delta)


def _joined(rows: Sequence[Velocity]) -> Velocity:
    return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
