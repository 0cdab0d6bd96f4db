"""Runs a stack of transformer blocks for some of its tokens, which still attend to the others.

Keys and values of every block and the change of every token through the whole stack are kept from the last time each
token was computed. A partial evaluation computes queries for the active tokens only, lets them attend to all keys,
and gives the other tokens their kept change on top of their present input.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from fastsam3d.acceleration.patching import Patches
from fastsam3d.diffusion.sites import CONDITIONAL, UNCONDITIONAL, BlockSite, EvaluationState, Forward


@dataclass
class _Store:
    """Kept values of one guidance branch: keys and values `[1, T, ...]` by block, change `[1, T, C]`.

    `input [1, T, C]`, read from `entered`, and `tokens [A]` (None for all) are those of the pass in progress.
    """

    keys: dict[int, Tensor] = field(default_factory=dict)
    values: dict[int, Tensor] = field(default_factory=dict)
    change: Tensor | None = None
    entered: Any = None
    input: Tensor | None = None
    tokens: Tensor | None = None


class PartialBlocks:
    """Partial evaluation of a stack of blocks, one store for each guidance branch.

    Memory: blocks x tokens x 2 widths for each branch, for the length of a run.

    Both passes of an evaluation compute the same tokens, because they may share what their first layers compute.

    Args:
        sites: the blocks in order.
        state: names the branch and the active tokens of the evaluation in progress, and is told how many were
            computed.
    """

    def __init__(self, sites: Sequence[BlockSite], state: EvaluationState) -> None:
        self.sites, self.state = list(sites), state
        self._stores: dict[str, _Store] = {}
        self._tokens: Tensor | None = None  # of the evaluation in progress

    def attach(self, patches: Patches) -> None:
        """Patches the blocks and their self-attentions."""
        for index, site in enumerate(self.sites):
            patches.replace(site.attention, "forward", self._attention(index, site))
        patches.replace(self.sites[0].block, "forward", self._enter)
        # In a stack of one block both patches are on the same block, and nest.
        patches.replace(self.sites[-1].block, "forward", self._leave)

    def start(self) -> None:
        """Begins a run with nothing kept."""
        self.finish()

    def finish(self) -> None:
        """Releases what was kept."""
        self._stores.clear()
        self._tokens = None

    def _store(self, site: BlockSite, h: Any) -> _Store | None:
        branch = self.state.branch
        if not self.state.running or branch is None or not site.states.accepts(h):
            return None
        return self._stores.setdefault(branch, _Store())

    def _enter(self, original: Forward) -> Forward:
        site = self.sites[0]

        def forward(h: Any, *args: Any, **kwargs: Any) -> Any:
            store = self._store(site, h)
            if store is None:
                return original(h, *args, **kwargs)
            store.entered, store.input = h, site.states.read(h)
            store.tokens = self._chosen(store.input)
            if store.tokens is not None:
                h = site.states.write(h, store.input.index_select(1, store.tokens), store.tokens)
            return original(h, *args, **kwargs)

        return forward

    def _chosen(self, x: Tensor) -> Tensor | None:
        """Tokens to compute in a pass over `x [1, T, C]`; None for all."""
        state = self.state
        if state.guided and state.branch == UNCONDITIONAL:
            return self._tokens  # as the conditional pass of this evaluation did
        # Where a pass has nothing kept yet, or the voxels are others, all tokens are computed.
        branches = (CONDITIONAL, UNCONDITIONAL) if state.guided else (state.branch,)
        changes = [store.change for branch in branches if branch and (store := self._stores.get(branch))]
        known = [change is not None and change.shape == x.shape for change in changes]
        self._tokens = state.tokens if len(known) == len(branches) and all(known) else None
        state.computed_tokens = None if self._tokens is None else len(self._tokens)
        return self._tokens

    def _attention(self, index: int, site: BlockSite) -> Callable[[Forward], Forward]:
        def make(original: Forward) -> Forward:
            def forward(x: Any) -> Any:
                store = self._store(site, x)
                if store is None:
                    return original(x)
                queries, keys, values = site.project(site.states.read(x), x)
                if store.tokens is not None:
                    store.keys[index].index_copy_(1, store.tokens, keys.to(store.keys[index].dtype))
                    store.values[index].index_copy_(1, store.tokens, values.to(store.values[index].dtype))
                else:
                    # Values are a view of the joint projection, which would be held alive three times as large.
                    store.keys[index], store.values[index] = keys.contiguous(), values.contiguous()
                return site.states.write(x, site.attend(queries, store.keys[index], store.values[index]))

            return forward

        return make

    def _leave(self, original: Forward) -> Forward:
        states = self.sites[-1].states

        def forward(h: Any, *args: Any, **kwargs: Any) -> Any:
            result = original(h, *args, **kwargs)
            store = self._store(self.sites[-1], h)
            if store is None or store.input is None:
                return result
            out, tokens = states.read(result), store.tokens
            (whole, store.entered), (entered, store.input) = (store.entered, None), (store.input, None)
            if tokens is None or store.change is None:
                store.change = out - entered
                return result
            store.change.index_copy_(1, tokens, (out - entered.index_select(1, tokens)).to(store.change.dtype))
            return states.write(whole, (entered + store.change).index_copy_(1, tokens, out))

        return forward
