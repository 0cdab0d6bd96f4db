"""One whole evaluation of a network, in a form that can be recorded and replayed."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

Outputs = tuple[dict[str, Tensor], ...]
"""Velocities by modality: of the conditional branch, and of the unconditional one where it ran."""
Branches = Callable[[dict[str, Tensor], "float | Tensor", Tensor], Outputs]
"""Runs the branches of one evaluation, `(state, time, condition)`. Time is flow time, a number or `[1]` in fp64."""


@dataclass(frozen=True)
class Evaluation:
    """One requested evaluation, with everything that it depends on.

    Attributes:
        passes: reads nothing that changes within a run but its arguments, which are the next three.
        x, time, condition: state by modality, flow time, condition tokens `[B, L, C]`.
        branches: guidance branches that it runs.
        kind: all else that makes it another computation, such as both branches in one pass.
        ahead: further evaluations like it that the run may yet make.
    """

    passes: Branches
    x: Mapping[str, Tensor]
    time: float
    condition: Tensor
    branches: frozenset[str]
    kind: Hashable
    ahead: int

    @property
    def shapes(self) -> Hashable:
        """Shapes, types and places of its inputs."""
        return tuple((name, shape_of(value)) for name, value in {**self.x, "": self.condition}.items())

    @property
    def key(self) -> Hashable:
        """Everything except values that decides what is computed, including the modes of PyTorch."""
        precision = precision_of(self.condition)
        return self.kind, self.branches, self.shapes, precision, torch.is_inference_mode_enabled()


class Replay(Protocol):
    """Runs whole evaluations, by a replay where there is one."""

    def run(self, asked: Evaluation) -> Outputs:
        """Returns the result of an evaluation; these tensors are not written to later."""


def precision_of(x: Tensor) -> torch.dtype | None:
    """Returns the dtype that autocast gives to products on the device of `x`; None where it is off."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None


def shape_of(x: Tensor) -> Hashable:
    return tuple(x.shape), x.dtype, x.device
