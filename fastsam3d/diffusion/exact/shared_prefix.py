"""Exact saving: computes the layers before the first cross-attention once for both guidance branches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from fastsam3d.diffusion.exact.saving import ExactSaving, Nesting, StageTarget, register_saving
from fastsam3d.diffusion.passes import Passes, WorkCount
from fastsam3d.diffusion.sites import BOTH, CONDITIONAL, UNCONDITIONAL, EvaluationState, Forward


class SharedPrefix:
    """Output of one module that the conditional pass leaves to the unconditional pass of the same evaluation."""

    def __init__(self, state: EvaluationState) -> None:
        self.state = state
        self._kept: tuple[int, Any] | None = None

    def start(self) -> None:
        """Begins a run with nothing kept."""
        self._kept = None

    def finish(self) -> None:
        """Releases the kept output."""
        self._kept = None

    def wrap(self, original: Forward) -> Forward:
        """The module's `forward`, which in the unconditional pass gives the output of the conditional one."""

        def forward(*args: Any, **kwargs: Any) -> Any:
            branch, evaluation = self.state.branch, self.state.evaluation
            if branch == BOTH:
                # The two halves of the batch are equal still.
                return _map(lambda v: v.expand(2, *v.shape[1:]), original(*_map(lambda v: v[:1], args), **kwargs))
            if branch == UNCONDITIONAL and self._kept is not None and self._kept[0] == evaluation:
                out = self._kept[1]
                self._kept = None
                return out
            out = original(*args, **kwargs)
            if branch == CONDITIONAL:
                self._kept = (evaluation, out)
            return out

        return forward


def _map(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    """Applies a function to every tensor of tuples and mappings."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, Mapping):
        return {name: _map(function, part) for name, part in value.items()}
    return tuple(_map(function, part) for part in value) if isinstance(value, tuple) else value


def _attach(target: StageTarget) -> None:
    for module in target.host.branch_prefix(target.stage):
        shared = SharedPrefix(target.runner.state)
        target.patches.replace(module, "forward", shared.wrap)
        target.keep(shared)


def _count(count: WorkCount, passes: Passes, runs: float, steps: float) -> WorkCount:
    """The first layers of an unconditional pass are those of the conditional pass beside it."""
    return replace(count, prefix_tokens=passes.shared_tokens, prefix_rest=passes.shared)


register_saving(
    ExactSaving(
        "shared_prefix",
        "Layers before the first cross-attention computed once for both branches. Faster; memory: their outputs.",
        Nesting.PREFIX,
        sites=("branch_prefix",),
        attach_stage=_attach,
        count=_count,
    )
)
