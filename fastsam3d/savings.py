"""What a sampling run costs in floating-point operations, with and without the exact savings. Arithmetic only.

The parts of one network pass come from the host (`EvaluationFlops`); here they are added up over a run as the exact
savings leave them. Hence a report can tell, after the run and at no cost, how much of what was saved was exact.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol


class PassFlops(Protocol):
    """One pass of a velocity network by its parts, see `fastsam3d.sam3d.models.flops.EvaluationFlops`."""

    @property
    def tokens(self) -> float: ...

    @property
    def cross(self) -> float: ...

    @property
    def condition(self) -> float: ...

    @property
    def rest(self) -> float: ...

    @property
    def modulation(self) -> float: ...

    @property
    def prefix_tokens(self) -> float: ...

    @property
    def prefix_rest(self) -> float: ...


@dataclass(frozen=True)
class Passes:
    """Passes of a stage's network over a run.

    Attributes:
        conditional, unconditional: how many ran.
        conditional_tokens, unconditional_tokens: the same, a pass over part of the tokens counted as that part.
    """

    conditional: float
    unconditional: float
    conditional_tokens: float
    unconditional_tokens: float

    @classmethod
    def full(cls, conditional: float, unconditional: float) -> Passes:
        """Passes over all tokens."""
        return cls(conditional, unconditional, conditional, unconditional)


def sampling_flops(
    parts: PassFlops, passes: Passes, exact: Collection[str] = (), runs: int = 1, steps: int | None = None
) -> float:
    """FLOP of the network passes of sampling runs.

    Args:
        parts: one plain pass.
        passes: those that ran, all runs together.
        exact: names of the exact savings that were on (see `SAVING_FLOPS`; others change no count).
        runs: sampling runs; what is kept for a run is computed once in each.
        steps: of all runs together, for which `time_tables` computes modulation; the conditional passes by default.
    """
    constant_cross = "zero_condition" in exact
    every = passes.conditional + passes.unconditional
    total = parts.tokens * (passes.conditional_tokens + passes.unconditional_tokens)
    total += (parts.rest - parts.modulation) * every
    total += parts.cross * (passes.conditional_tokens + (0.0 if constant_cross else passes.unconditional_tokens))
    if "time_tables" in exact:
        total += parts.modulation * (passes.conditional if steps is None else steps)
    else:
        total += parts.modulation * every
    if "condition_cache" in exact:
        branches = 1 + int(passes.unconditional > 0 and not constant_cross)
        total += parts.condition * runs * branches
    else:
        total += parts.condition * (passes.conditional + (0.0 if constant_cross else passes.unconditional))
    if "shared_prefix" in exact:
        total -= parts.prefix_tokens * passes.unconditional_tokens + parts.prefix_rest * passes.unconditional
    return total


SAVING_FLOPS = ("zero_condition", "condition_cache", "shared_prefix", "time_tables")
"""Exact savings that save operations of the velocity networks. The others save memory traffic, waiting, or the
multiplication by zeros that these counts leave out anyway."""


def saved_by_switch(
    parts: PassFlops, passes: Passes, exact: Collection[str], runs: int = 1, steps: int | None = None
) -> dict[str, float]:
    """FLOP that each exact saving takes off what those before it left, in the order of `SAVING_FLOPS`."""
    saved: dict[str, float] = {}
    done: list[str] = []
    before = sampling_flops(parts, passes, done, runs, steps)
    for name in SAVING_FLOPS:
        if name in exact:
            done.append(name)
            after = sampling_flops(parts, passes, done, runs, steps)
            saved[name], before = before - after, after
    return saved
