"""Exact saving: projects the condition to keys and values once for a run, because it does not change over a run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from fastsam3d.diffusion.exact.saving import ExactSaving, Nesting, StageTarget, register_saving
from fastsam3d.diffusion.passes import Passes, WorkCount
from fastsam3d.diffusion.sites import BOTH, CONDITIONAL, CrossAttentionSite, EvaluationState, Forward
from fastsam3d.modules.tensor_versions import written_to


class ConditionCache:
    """Cross-attention of one module during a run, with keys and values of the condition projected once a branch.

    Args:
        site: where the module's parts are.
        state: what the host evaluates at the moment.
    """

    def __init__(self, site: CrossAttentionSite, state: EvaluationState) -> None:
        self.site, self.state = site, state
        self._held = False
        self._projected: dict[str, tuple[Tensor | None, Tensor, Tensor]] = {}

    def start(self) -> None:
        """Begins a run with nothing kept: weights and condition may have changed since the last."""
        self.finish()

    def finish(self) -> None:
        """Releases the kept values; held tensors keep their addresses, and count as out of date."""
        if self._held:
            self._projected = {branch: (None, k, v) for branch, (_, k, v) in self._projected.items()}
        else:
            self._projected.clear()

    def hold(self, held: bool) -> None:
        """With `held`, keeps the tensors' addresses across runs, because a recorded graph reads those addresses.

        Without, what is out of date is released.
        """
        self._held = held
        if not held:
            self._projected = {branch: kept for branch, kept in self._projected.items() if kept[0] is not None}

    def tensors(self) -> tuple[Tensor, ...]:
        """Returns all kept tensors."""
        return tuple(tensor for _, k, v in self._projected.values() for tensor in (k, v))

    def wrap(self, original: Forward) -> Forward:
        """The module's `forward` with kept keys and values; outside a run it is the original."""

        def forward(x: Tensor, context: Tensor) -> Tensor:
            branch, condition = self.state.branch, self.state.condition
            if branch is None or condition is None:
                return original(x, context)
            # Of a pass of both branches, only the conditional half comes here (`zero_condition`).
            branch = CONDITIONAL if branch == BOTH else branch
            # By identity of what the pipeline handed in: the network may cast or zero it anew at every call.
            kept = self._projected.get(branch)
            if kept is None or kept[0] is not condition:
                old = (None, None) if kept is None else kept[1:]
                k, v = self.site.project_context(context)
                kept = (condition, written_to(self._place(old[0]), k), written_to(self._place(old[1]), v))
                self._projected[branch] = kept
            return self.site.attend(x, kept[1], kept[2])

        return forward

    def _place(self, old: Tensor | None) -> Tensor | None:
        return old if self._held else None


class KeptProjection:
    """Output of one layer of the condition during a run, computed once a branch.

    Args:
        state: what the host evaluates at the moment.
    """

    def __init__(self, state: EvaluationState) -> None:
        self.state = state
        self._kept: dict[str, tuple[Any, Tensor]] = {}

    def start(self) -> None:
        """Begins a run with nothing kept."""
        self._kept.clear()

    def finish(self) -> None:
        """Releases the kept values."""
        self._kept.clear()

    def wrap(self, original: Forward) -> Forward:
        """The layer's `forward` with the kept output, of the chosen tokens where some were chosen."""

        def forward(x: Tensor) -> Tensor:
            branch, condition, chosen = self.state.branch, self.state.condition, self.state.tokens
            if branch is None or condition is None:
                return original(x)
            kept = self._kept.get(branch)
            if kept is not None and kept[0] is condition:
                if kept[1].shape[:-1] == x.shape[:-1]:
                    return kept[1]
                if chosen is not None and len(chosen) == x.shape[-2]:
                    return kept[1].index_select(-2, chosen)
                return original(x)
            projected = original(x)
            self._kept[branch] = (condition, projected)
            return projected

        return forward


def _attach(target: StageTarget) -> None:
    for site in target.host.cross_attentions(target.stage):
        cache = ConditionCache(site, target.runner.state)
        target.patches.replace(site.module, "forward", site.states.through(cache.wrap))
        target.keep(cache)
        if site.projection is not None:
            projected = KeptProjection(target.runner.state)
            target.patches.replace(site.projection, "forward", projected.wrap)
            target.keep(projected)


def _count(count: WorkCount, passes: Passes, runs: float, steps: float) -> WorkCount:
    """The condition is projected once a run for every branch that projects it at all."""
    other = runs if count.condition_unconditional > 0 else 0.0
    return replace(count, condition_conditional=runs, condition_unconditional=other)


register_saving(
    ExactSaving(
        "condition_cache",
        "Condition keys and values kept for a run. Faster; memory: blocks x condition tokens x 2 widths, and blocks x "
        "tokens x width where every token has a condition of its own.",
        Nesting.CONDITION,
        sites=("cross_attentions",),
        attach_stage=_attach,
        count=_count,
        keeps="condition",
    )
)
