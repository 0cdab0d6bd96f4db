"""Runs the blocks of the first stage for some of its tokens: for the layout alone, or for some shape tokens alone.

The shape never sees the layout. With keys and values of the shape kept from the last whole evaluation, the four layout
tokens run through the network for next to nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fastsam3d.acceleration.patching import Patches
from fastsam3d.diffusion.sites import EvaluationState, Forward, StreamBlockSite

Streams = Mapping[str, Tensor]


class PartialStreams:
    """Partial evaluation of a stack of blocks with a shape and a layout stream.

    Memory with `keep`: blocks x shape tokens x 2 widths for each guidance branch, for the length of a run.

    Args:
        sites: the blocks in order.
        state: names the branch and what is asked of the evaluation in progress.
        keep: whether whole evaluations keep the shape's keys and values, which `layout_only` needs.
    """

    def __init__(self, sites: Sequence[StreamBlockSite], state: EvaluationState, keep: bool) -> None:
        self.sites, self.state, self.keep = list(sites), state, keep
        self._kept: dict[tuple[str, int], tuple[Tensor, Tensor]] = {}
        self._entered: Streams = {}

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
        self._kept.clear()
        self._entered = {}

    @property
    def _partial(self) -> bool:
        state = self.state
        return state.running and state.branch is not None and (state.layout_only or state.subset is not None)

    def _enter(self, original: Forward) -> Forward:
        shape, layout = self.sites[0].shape, self.sites[0].layout

        def forward(h: Streams, *args: Any, **kwargs: Any) -> Any:
            if not self._partial:
                return original(h, *args, **kwargs)
            self._entered = h
            if self.state.layout_only:
                return original({layout: h[layout]}, *args, **kwargs)
            assert self.state.subset is not None
            chosen = {shape: h[shape].index_select(1, self.state.subset), layout: h[layout]}
            return original(chosen, *args, **kwargs)

        return forward

    def _attention(self, index: int, site: StreamBlockSite) -> Callable[[Forward], Forward]:
        def make(original: Forward) -> Forward:
            def forward(x: Streams) -> Any:
                branch = self.state.branch
                if not self.state.running or branch is None or self.state.subset is not None:
                    return original(x)
                if self.state.layout_only:
                    return {site.layout: self._layout(site, x[site.layout], *self._kept[branch, index])}
                if not self.keep or site.layout not in x:
                    return original(x)
                queries, keys, values = site.project(site.shape, x[site.shape])
                # Values are a view of the joint projection, which would be held alive three times as large.
                self._kept[branch, index] = keys.contiguous(), values.contiguous()
                return {
                    site.shape: site.attend(site.shape, queries, keys, values),
                    site.layout: self._layout(site, x[site.layout], keys, values),
                }

            return forward

        return make

    @staticmethod
    def _layout(site: StreamBlockSite, x: Tensor, shape_keys: Tensor, shape_values: Tensor) -> Tensor:
        queries, keys, values = site.project(site.layout, x)
        keys, values = torch.cat([keys, shape_keys], dim=1), torch.cat([values, shape_values], dim=1)
        return site.attend(site.layout, queries, keys, values)

    def _leave(self, original: Forward) -> Forward:
        shape = self.sites[0].shape

        def forward(h: Streams, *args: Any, **kwargs: Any) -> Any:
            out = original(h, *args, **kwargs)
            if not self._partial:
                return out
            entered, self._entered = self._entered, {}
            if self.state.layout_only:
                return {**out, shape: entered[shape]}  # the host drops the shape's velocity
            assert self.state.subset is not None
            whole = entered[shape].to(out[shape].dtype).index_copy(1, self.state.subset, out[shape])
            return {**out, shape: whole}

        return forward
