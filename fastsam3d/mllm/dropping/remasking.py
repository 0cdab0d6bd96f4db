"""Masks single visual tokens and chooses them anew in every step of generation: the pruning that Fast3D released.

For comparison only; `prefill` and `decoding` are for real work. Nothing becomes shorter: from the cut on, each layer
computes all tokens, and a mask hides the tokens that were not chosen. These defects are kept on purpose: the tokens of
an object are chosen one by one, so it may be visible in part; each new token makes its own choice; the first row of a
sample chooses for all of its beams; padding objects can be chosen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from weakref import ReferenceType, ref

import torch
from torch import Tensor
from torch.nn import functional

from fastsam3d.mllm.attention_rows import RowSet
from fastsam3d.mllm.dropping.choices import Choice
from fastsam3d.mllm.dropping.plan import Plan
from fastsam3d.mllm.dropping.prefill import Kept, given_of_samples
from fastsam3d.mllm.dropping.refusals import refuse_rows
from fastsam3d.mllm.dropping.token_dropping import allowed_pairs, as_additive, as_bool
from fastsam3d.mllm.host import Host
from fastsam3d.mllm.report import Clock
from fastsam3d.mllm.spans import NO_GROUP, Layout
from fastsam3d.mllm.vocabulary import Prompts, ScoringBatch


class Remasking:
    """One prompt of a batch, and the steps of generation after it.

    Args:
        host, plan: of the model.
        layout: of the whole batch, copies of samples for beam search included.
        copies: rows of each sample, which follow one another.
        prompts: of the samples, for the scorer.
    """

    def __init__(self, host: Host, plan: Plan, layout: Layout, copies: int, prompts: Prompts) -> None:
        self._host, self._plan, self._copies, self._prompts = host, plan, copies, prompts
        self._cut, self._live = plan.cuts[0], layout.live
        self._single = single_tokens(layout.take(slice(None, None, copies)))
        self._step, self._rows = 0, len(layout.live)
        self._before: tuple[Tensor, dict[str, Any]] | None = None
        self._mask: Tensor | None = None
        self._cache: ReferenceType[Any] | None = None
        self.kept: tuple[Kept, ...] = ()
        """As in `Prefill`; empty, because nothing leaves."""
        self.choices: tuple[Choice, ...] = ()
        """As in `Prefill`; empty, because whole groups are not chosen."""
        self.clock = Clock(layout.live.device)
        """Seconds of choosing, in the prompt and in all steps."""
        self.masked_by_layer: list[int] = []
        """Visual tokens of the samples that were masked in each layer while the prompt was read."""

    @property
    def cache(self) -> Any:
        """The cache of the prompt; None without one. It is held by a weak reference, so that it can be freed."""
        return None if self._cache is None else self._cache()

    def next_step(self, rows: int) -> Remasking:
        """Begins a step of generation.

        Raises:
            UserError: the batch has another number of rows than the prompt had.
        """
        refuse_rows(self._rows, rows)
        self._step, self._before, self._mask = self._step + 1, None, None
        return self

    def enter(self, index: int, hidden: Tensor, given: dict[str, Any], cache: Any) -> tuple[Tensor, dict[str, Any]]:
        """Replaces the mask of a layer; for the arguments see `Prefill.enter`."""
        self._cache = None if cache is None else ref(cache)
        if index == self._cut - 1:
            self._before = (hidden, given_of_samples(given, slice(None)))
        if index < self._cut:
            return hidden, given
        if index == self._cut:
            with torch.no_grad(), self.clock:
                self._mask = self._chosen(hidden, given)
            self._before = None
        return hidden, given | {"attention_mask": self._mask}

    def _chosen(self, hidden: Tensor, given: Mapping[str, Any]) -> Tensor:
        """The mask of the layers from the cut on, with tokens chosen anew."""
        layout, one_each = self._single, slice(None, None, self._copies)
        batch = ScoringBatch(
            layout,
            hidden[one_each],
            self._prompts,
            self._host.target,
            layout.present.shape[1],
            lambda rows: self._attention(rows, one_each),
            lambda: self._keys(one_each),
            layer=self._cut,
            step=self._step,
        )
        scorer, budget = self._plan.scorer, self._plan.budget
        keep = budget.chosen(scorer.score(batch).to(layout.present.device), layout.present, scorer.scale)
        hides = layout.visual & ~keep.gather(1, layout.group_of.clamp(min=0))
        if self._step == 0:
            layers = len(self._host.layers)
            self.masked_by_layer = [int(hides.sum()) if index >= self._cut else 0 for index in range(layers)]
        hides = hides.repeat_interleave(self._copies, dim=0)
        mask, additive = given.get("attention_mask"), self._host.additive_masks
        if self._step == 0:
            pairs = allowed_pairs(mask, None, self._live & ~hides)
        else:
            pairs = _of_one_row(mask, self._live, self._columns()) & ~self._grown(hides)[:, None, None]
        return as_additive(pairs, hidden.dtype) if additive else pairs

    def _columns(self) -> int:
        """Tokens that a layer sees in this step, the new one included."""
        return self._live.shape[1] + self._step

    def _grown(self, of_prompt: Tensor) -> Tensor:
        """Values of the prompt's columns, with False for the tokens generated since."""
        return functional.pad(of_prompt, (0, self._columns() - of_prompt.shape[1]))

    def _attention(self, rows: RowSet | Tensor, samples: slice) -> Tensor:
        """Attention of rows of the prompt, or of the one new token, to the tokens of the prompt, (samples, S)."""
        assert self._before is not None
        hidden, given = self._before[0][samples], given_of_samples(self._before[1], samples)
        live = self._live[samples]
        if self._step == 0:
            weights = rows.weights(self._single) if isinstance(rows, RowSet) else rows
        else:
            weights = live.new_ones(len(hidden), 1).float()
            given["attention_mask"] = _of_one_row(given["attention_mask"], live, self._columns())
        keys = self._keys(samples)
        attention = self._host.attention(self._cut - 1, hidden, given, keys, live, weights[None])[0]
        return attention[:, : self._live.shape[1]].to(live.device)

    def _keys(self, samples: slice) -> Tensor:
        assert self._before is not None
        cached = self._host.cached_keys(self._cut - 1, self.cache)
        if cached is not None:
            return cached[samples]
        hidden, given = self._before
        return self._host.keys(self._cut - 1, hidden[samples], given_of_samples(given, samples))


def single_tokens(layout: Layout) -> Layout:
    """A layout in which each visual token is a group of its own. Tokens of padding objects are present too."""
    visual = layout.visual
    counts = visual.sum(1)
    numbers = (visual.cumsum(1) - 1).masked_fill(~visual, NO_GROUP)
    most = int(counts.max()) if len(counts) else 0
    present = torch.arange(most, device=counts.device) < counts[:, None]
    return replace(layout, group_of=numbers, present=present, groups=counts)


def _of_one_row(mask: Tensor | None, live: Tensor, columns: int) -> Tensor:
    """What the one row of a step sees, (B, 1, 1, columns) bool."""
    if mask is None:
        return functional.pad(live, (0, columns - live.shape[1]), value=True)[:, None, None]
    return as_bool(mask)[:, :, -1:].expand(len(live), -1, -1, -1)
