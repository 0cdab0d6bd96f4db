"""Exact saving: cross-attention of the unconditional pass gives one constant vector, because its condition is zero.

All keys of a condition of zeros are equal, so the softmax is uniform and every token gets the same output,
`W_o b_v + b_o`: queries, keys, values and attention need not be computed.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from fastsam3d.diffusion.exact.saving import ExactSaving, Nesting, StageTarget, register_saving
from fastsam3d.diffusion.passes import Passes, WorkCount
from fastsam3d.diffusion.sites import BOTH, UNCONDITIONAL, CrossAttentionSite, EvaluationState, Forward
from fastsam3d.modules.tensor_versions import written_to


class ZeroCondition:
    """Cross-attention of one module during a run, constant for a condition of zeros.

    Args:
        site: where the module's parts are.
        state: what the host evaluates at the moment.
    """

    def __init__(self, site: CrossAttentionSite, state: EvaluationState) -> None:
        self.site, self.state = site, state
        self._held = False
        self._constant: Tensor | None = None
        self._is_fresh = False

    def start(self) -> None:
        """Begins a run with nothing kept: the weights may have changed since the last."""
        self.finish()

    def finish(self) -> None:
        """Releases the constant; a held one keeps its address, and counts as out of date."""
        self._is_fresh = False
        if not self._held:
            self._constant = None

    def hold(self, held: bool) -> None:
        """With `held`, keeps the constant's address across runs, because a recorded graph reads that address.

        Without, a constant that is out of date is released.
        """
        self._held = held
        if not held and not self._is_fresh:
            self._constant = None

    def tensors(self) -> tuple[Tensor, ...]:
        """Returns all kept tensors."""
        return () if self._constant is None else (self._constant,)

    def wrap(self, original: Forward) -> Forward:
        """The module's `forward` with the constant in it; outside a run it is the original."""

        def forward(x: Tensor, context: Tensor) -> Tensor:
            branch = self.state.branch
            if branch is None or self.state.condition is None:
                return original(x, context)
            if branch == BOTH:
                conditional = original(x[:1], context)
                return torch.cat([conditional, self._of_zeros(context.shape[1]).expand_as(conditional)])
            if branch == UNCONDITIONAL and self.state.zero_condition:
                return self._of_zeros(context.shape[1]).expand(*x.shape[:-1], -1)
            return original(x, context)

        return forward

    def _of_zeros(self, length: int) -> Tensor:
        if self._constant is None or not self._is_fresh:
            self._constant = written_to(self._constant if self._held else None, self.site.constant(length))
            self._is_fresh = True
        return self._constant


def _one_row(state: EvaluationState, original: Forward) -> Forward:
    """Wraps a layer of a condition: of zeros, one row is computed, which is its bias."""

    def forward(x: Tensor) -> Tensor:
        if state.branch != UNCONDITIONAL or state.condition is None or not state.zero_condition:
            return original(x)
        return original(x[..., :1, :]).expand(*x.shape[:-1], -1)

    return forward


def _attach(target: StageTarget) -> None:
    state = target.runner.state
    for site in target.host.cross_attentions(target.stage):
        constant = ZeroCondition(site, state)
        target.patches.replace(site.module, "forward", site.states.through(constant.wrap))
        target.keep(constant)
        if site.projection is not None:
            target.patches.replace(site.projection, "forward", partial(_one_row, state))


def _count(count: WorkCount, passes: Passes, runs: float, steps: float) -> WorkCount:
    """Unconditional passes compute no cross-attention and project no condition."""
    return replace(count, cross_unconditional=0.0, condition_unconditional=0.0)


register_saving(
    ExactSaving(
        "zero_condition",
        "Constant cross-attention in the unconditional pass. Faster; no cost.",
        Nesting.GUIDANCE,
        sites=("cross_attentions",),
        attach_stage=_attach,
        count=_count,
    )
)
