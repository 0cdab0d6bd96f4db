"""Exact savings in cross-attention: constant output for a zero condition, kept keys and values of the condition."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from fastsam3d.diffusion.exact.switches import ExactConfig
from fastsam3d.diffusion.sites import BOTH, CONDITIONAL, UNCONDITIONAL, CrossAttentionSite, EvaluationState, Forward


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
        self._held = False
        self._constant: Tensor | None = None
        self._constant_is_fresh = False
        self._projected: dict[str, tuple[Tensor | None, Tensor, Tensor]] = {}

    def start(self) -> None:
        """Begins a run with nothing kept: weights and condition may have changed since the last."""
        self.finish()

    def finish(self) -> None:
        """Releases what was kept; what is held stays where it is, and counts as out of date."""
        self._constant_is_fresh = False
        if self._held:
            self._projected = {branch: (None, k, v) for branch, (_, k, v) in self._projected.items()}
        else:
            self._constant = None
            self._projected.clear()

    def hold(self, held: bool) -> None:
        """With `held`, keeps tensors beyond a run and copies new values to where they are: a graph reads them there.

        Without, what is out of date is released.
        """
        self._held = held
        if not held:
            self._projected = {branch: kept for branch, kept in self._projected.items() if kept[0] is not None}
            self._constant = self._constant if self._constant_is_fresh else None

    def tensors(self) -> tuple[Tensor, ...]:
        """Everything that is kept."""
        constant = () if self._constant is None else (self._constant,)
        return (*constant, *(tensor for _, k, v in self._projected.values() for tensor in (k, v)))

    def wrap(self, original: Forward) -> Forward:
        """The module's `forward` with the savings in it; outside a run it is the original."""

        def forward(x: Tensor, context: Tensor) -> Tensor:
            branch, condition = self.state.branch, self.state.condition
            if branch is None or condition is None:
                return original(x, context)
            if branch == BOTH:
                # Only asked for where `zero_condition` is on.
                conditional = self._conditional(x[:1], context, condition, CONDITIONAL, original)
                return torch.cat([conditional, self._of_zeros().expand_as(conditional)])
            if self.zero_condition and branch == UNCONDITIONAL and self.state.zero_condition:
                return self._of_zeros().expand(*x.shape[:-1], -1)
            return self._conditional(x, context, condition, branch, original)

        return forward

    def _of_zeros(self) -> Tensor:
        if self._constant is None or not self._constant_is_fresh:
            self._constant = self._in_place(self._constant, self.site.constant())
            self._constant_is_fresh = True
        return self._constant

    def _in_place(self, old: Tensor | None, new: Tensor) -> Tensor:
        """`new`, written to where `old` is if that is held and fits."""
        if old is None or not self._held or (old.shape, old.dtype, old.device) != (new.shape, new.dtype, new.device):
            return new
        if old.is_inference() and not torch.is_inference_mode_enabled():
            return new  # PyTorch forbids writing to such a tensor outside the mode that it was made in
        return old.copy_(new)

    def _conditional(self, x: Tensor, context: Tensor, condition: Tensor, branch: str, original: Forward) -> Tensor:
        if not self.keep:
            return original(x, context)
        # By identity of what the pipeline handed in: the network may cast or zero it anew at every call.
        kept = self._projected.get(branch)
        if kept is None or kept[0] is not condition:
            old = (None, None) if kept is None else kept[1:]
            new = self.site.project_context(context)
            kept = (condition, self._in_place(old[0], new[0]), self._in_place(old[1], new[1]))
            self._projected[branch] = kept
        return self.site.attend(x, kept[1], kept[2])


def condition_caches(
    config: ExactConfig, sites: Iterable[CrossAttentionSite], state: EvaluationState
) -> list[ConditionCache]:
    """One cache for each cross-attention module, none where both switches are off."""
    if not (config.zero_condition or config.condition_cache):
        return []
    return [ConditionCache(site, state, config.zero_condition, config.condition_cache) for site in sites]
