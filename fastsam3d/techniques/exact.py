"""Savings that change no result: the same function, computed with less work.

- *Zero condition.* The unconditional pass sees zeros for a condition. All its keys are then equal, the softmax is
  uniform, and cross-attention gives one constant vector, `W_o b_v + b_o`, to every token: queries, keys, values and
  attention need not be computed.
- *Condition cache.* The condition does not change over a run; its keys and values are projected once a block.
- *Shared prefix.* Up to the first cross-attention no condition has entered: conditional and unconditional pass compute
  the same there, hence once.
- *Index cache.* The voxels do not change over a run; neighbour and pooling tables are built once.

What is kept lives as long as a sampling run and no longer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastsam3d.hosts.base import CONDITIONAL, UNCONDITIONAL, CrossAttentionSite, EvaluationState
from fastsam3d.techniques.base import STAGES, Technique, TechniqueConfig, register, setting

Forward = Callable[..., Any]


@dataclass(frozen=True)
class ExactConfig(TechniqueConfig):
    """Switches of the exact savings. Equal results up to rounding; memory is the only price."""

    zero_condition: bool = setting(
        True, "Constant cross-attention in the unconditional pass. Faster; no cost."
    )
    condition_cache: bool = setting(
        True,
        "Condition keys and values kept for a run. Faster; memory: blocks x condition tokens x 2 widths.",
    )
    shared_prefix: bool = setting(
        True, "Layers before the first cross-attention computed once for both branches. Faster; memory: their outputs."
    )
    index_cache: bool = setting(True, "Voxel tables kept for a run. Faster; memory: 27 numbers a voxel.")


class ConditionCache:
    """Cross-attention of one module during a run, with what is constant computed once.

    Args:
        site: where the module's parts are.
        state: what the host evaluates at the moment.
        zero_condition, keep: the two switches.
    """

    def __init__(
        self, site: CrossAttentionSite, state: EvaluationState, zero_condition: bool, keep: bool
    ) -> None:
        self.site, self.state = site, state
        self.zero_condition, self.keep = zero_condition, keep
        self._constant: Tensor | None = None
        self._projected: dict[str, tuple[Tensor, Tensor, Tensor]] = {}

    def start(self) -> None:
        """Begins a run with nothing kept: weights and condition may have changed since the last."""
        self.finish()

    def finish(self) -> None:
        """Releases what was kept."""
        self._constant = None
        self._projected.clear()

    def wrap(self, original: Forward) -> Forward:
        """The module's `forward` with the savings in it; outside a run it is the original."""

        def forward(x: Tensor, context: Tensor) -> Tensor:
            branch, condition = self.state.branch, self.state.condition
            if branch is None or condition is None:
                return original(x, context)
            if self.zero_condition and branch == UNCONDITIONAL:
                if self._constant is None:
                    self._constant = self.site.constant()
                return self._constant.expand(*x.shape[:-1], -1)
            if not self.keep:
                return original(x, context)
            # By identity of what the pipeline handed in: the network may cast or zero it anew at every call.
            kept = self._projected.get(branch)
            if kept is None or kept[0] is not condition:
                kept = (condition, *self.site.project_context(context))
                self._projected[branch] = kept
            return self.site.attend(x, kept[1], kept[2])

        return forward


class SharedPrefix:
    """Output of one module that the conditional pass leaves to the unconditional pass of the same evaluation."""

    def __init__(self, state: EvaluationState) -> None:
        self.state = state
        self._kept: tuple[int, Any] | None = None

    def start(self) -> None:
        """Begins a run with nothing kept."""
        self._kept = None

    def finish(self) -> None:
        """Releases what was kept."""
        self._kept = None

    def wrap(self, original: Forward) -> Forward:
        """The module's `forward`, which in the unconditional pass gives the output of the conditional one."""

        def forward(*args: Any, **kwargs: Any) -> Any:
            branch, evaluation = self.state.branch, self.state.evaluation
            if branch == UNCONDITIONAL and self._kept is not None and self._kept[0] == evaluation:
                out = self._kept[1]
                self._kept = None
                return out
            out = original(*args, **kwargs)
            if branch == CONDITIONAL:
                self._kept = (evaluation, out)
            return out

        return forward


class IndexCache:
    """One index object for the voxels of a run."""

    def __init__(self, state: EvaluationState) -> None:
        self.state = state
        self._kept: tuple[Tensor, Any] | None = None

    def start(self) -> None:
        """Begins a run with nothing kept."""
        self._kept = None

    def finish(self) -> None:
        """Releases what was kept."""
        self._kept = None

    def wrap(self, original: Forward) -> Forward:
        """The maker of index objects, which gives the same one for the same voxels within a run."""

        def make_index(coords: Tensor) -> Any:
            if not self.state.running:
                return original(coords)
            if self._kept is None or not _same(self._kept[0], coords):
                self._kept = (coords, original(coords))
            return self._kept[1]

        return make_index


def _same(a: Tensor, b: Tensor) -> bool:
    # Moving coordinates to the device makes a new tensor at each call; comparing them is cheap beside building tables.
    return a is b or (a.shape == b.shape and a.device == b.device and torch.equal(a, b))


def condition_caches(
    config: ExactConfig, sites: Iterable[CrossAttentionSite], state: EvaluationState
) -> list[ConditionCache]:
    """One cache for each cross-attention module, none where both switches are off."""
    if not (config.zero_condition or config.condition_cache):
        return []
    return [ConditionCache(site, state, config.zero_condition, config.condition_cache) for site in sites]


register(Technique("exact", ExactConfig, "exact", STAGES))
