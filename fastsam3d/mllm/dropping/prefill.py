"""One reading of a prompt, in which visual tokens leave at the layers of the plan.

The decoder still passes masks, positions and rotary tables of the full length to its layers. From the first cut on,
they are replaced: each layer gets those of the remaining tokens. These tokens keep their original positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fastsam3d.mllm.attention_rows import RowSet
from fastsam3d.mllm.budgets import ADAPTIVE
from fastsam3d.mllm.dropping.choices import Choice
from fastsam3d.mllm.dropping.plan import Plan
from fastsam3d.mllm.dropping.token_dropping import allowed_pairs, as_additive, kept_columns, take
from fastsam3d.mllm.host import Host
from fastsam3d.mllm.report import Clock
from fastsam3d.mllm.spans import NO_GROUP, Layout
from fastsam3d.mllm.vocabulary import Prompts, ScoringBatch


@dataclass(frozen=True)
class Kept:
    """The tokens that remain after a cut.

    Attributes:
        layer: of the cut.
        valid: (B, R) bool: places of the shortened prompt that hold a token which may be seen.
        full: whether `valid` is True everywhere.
    """

    layer: int
    valid: Tensor
    full: bool


class Prefill:
    """One reading of a prompt by one model.

    Args:
        host, plan: of the model.
        layout: of the whole batch, copies of samples for beam search included.
        copies: rows of each sample, which follow one another.
        prompts: of the samples, for the scorer.
        full_map: (samples, N) attention map of a full run, if the scorer asks for one; else None.
    """

    def __init__(
        self,
        host: Host,
        plan: Plan,
        layout: Layout,
        copies: int,
        prompts: Prompts,
        full_map: Tensor | None,
    ) -> None:
        self._host, self._plan, self._copies = host, plan, copies
        self._prompts, self._full_map = prompts, full_map
        self.layout = layout
        self.kept: list[Kept] = []
        """Cuts at which something left."""
        self.choices: list[Choice] = []
        """What was chosen for the samples at every cut."""
        self.cache: Any = None
        self.clock = Clock(layout.live.device)
        """Of the scoring."""
        self._given: dict[str, Any] = {}
        self._before: tuple[int, Tensor, Mapping[str, Any]] | None = None

    def enter(self, index: int, hidden: Tensor, given: dict[str, Any], cache: Any) -> tuple[Tensor, dict[str, Any]]:
        """Replaces the input of a layer.

        Args:
            index: of the layer.
            hidden: (B, S, D) its input.
            given: its keyword arguments.
            cache: the cache among them; None without one.

        Returns:
            The input (B, R, D) without the tokens that have left, and the keyword arguments that fit it.
        """
        self.cache = cache
        given = given | self._given
        if index in self._plan.cuts:
            with torch.no_grad():
                keep = self._chosen(index, hidden)
            hidden = self._drop(index, keep, hidden, given)
            given = given | self._given
        self._before = (index, hidden, given) if index + 1 in self._plan.cuts else None
        return hidden, given

    def _chosen(self, index: int, hidden: Tensor) -> Tensor:
        """Groups that stay, (samples, N) bool."""
        with self.clock:
            one_each = slice(None, None, self._copies)
            layout = self.layout.take(one_each)
            batch = ScoringBatch(
                layout,
                hidden[one_each],
                self._prompts,
                self._host.target,
                self._wanted(layout),
                lambda rows: self._attention(layout, rows, one_each),
                lambda: self._keys(one_each),
                self._full_map,
                layer=index,
            )
            scores, scale = self._plan.scorer.score(batch).to(layout.present.device), self._plan.scorer.scale
            keep = self._plan.budget.chosen(scores, layout.present, scale)
        self.choices.append(Choice(index, keep, scores, layout.present, layout.groups, scale))
        return keep

    def _wanted(self, layout: Layout) -> int:
        budget, present = self._plan.budget, layout.present
        counts = present.sum(1) if budget.rule in ADAPTIVE else budget.counts(present.float(), present)
        return int(counts.max())

    def _drop(self, index: int, keep: Tensor, hidden: Tensor, given: dict[str, Any]) -> Tensor:
        """Takes out the tokens of groups that leave, and prepares the keyword arguments of the next layers."""
        layout = self.layout
        present = keep.repeat_interleave(self._copies, dim=0)
        leaves = layout.visual & ~present.gather(1, layout.group_of.clamp(min=0)) if present.shape[1] else layout.visual
        self.layout = replace(layout, present=present)
        if not bool(leaves.any()):
            return hidden
        stays = layout.live & ~leaves
        columns, valid = (None, stays) if self._plan.mask else kept_columns(stays)
        cut = Kept(index, valid, bool(valid.all()))
        self.kept.append(cut)
        given_mask, additive = given.get("attention_mask"), self._host.additive_masks
        if given_mask is None and cut.full and not additive:
            mask = None  # causal, by the flag of the fused attention
        else:
            pairs = allowed_pairs(given_mask, columns, valid)
            mask = as_additive(pairs, hidden.dtype) if additive else pairs
        self._given = {"attention_mask": mask}
        if columns is None:
            self.layout = replace(self.layout, live=stays, group_of=layout.group_of.masked_fill(leaves, NO_GROUP))
            return hidden
        group_of = take(layout.group_of, columns).masked_fill(~valid, NO_GROUP)
        text = valid & (columns > layout.last_visual[:, None])
        last = columns.shape[1] - 1 - text.sum(1)
        self.layout = replace(self.layout, live=valid, group_of=group_of, last_visual=last)
        self._given["position_embeddings"] = tuple(take(table, columns) for table in given["position_embeddings"])
        if given.get("position_ids") is not None:
            self._given["position_ids"] = take(given["position_ids"], columns)
        if given.get("cache_position") is not None:
            self._given["cache_position"] = given["cache_position"][-columns.shape[1] :]
        return take(hidden, columns)

    def _attention(self, layout: Layout, rows: RowSet | Tensor, samples: slice) -> Tensor:
        index, hidden, given = self._input_before(samples)
        weights = (rows.weights(layout) if isinstance(rows, RowSet) else rows)[None]
        attention = self._host.attention(index, hidden, given, self._keys(samples), layout.live, weights)
        return attention[0].to(layout.live.device)

    def _keys(self, samples: slice) -> Tensor:
        index, hidden, given = self._input_before(samples)
        cached = self._host.cached_keys(index, self.cache)
        same = cached is not None and len(cached) == len(hidden) * self._copies and cached.shape[2] == hidden.shape[1]
        return cached[samples] if cached is not None and same else self._host.keys(index, hidden, given)

    def _input_before(self, samples: slice) -> tuple[int, Tensor, dict[str, Any]]:
        """Index, input and keyword arguments of the layer before the cut, for some samples."""
        assert self._before is not None, "a scorer that reads the layer before declares needs_layer"
        index, hidden, given = self._before
        return index, hidden[samples], given_of_samples(given, samples)


def given_of_samples(given: Mapping[str, Any], samples: slice) -> dict[str, Any]:
    """Mask and rotary tables of a layer's keyword arguments, for some samples."""
    mask, tables = given.get("attention_mask"), given["position_embeddings"]
    return {
        "attention_mask": mask if mask is None or len(mask) == 1 else mask[samples],
        "position_embeddings": tuple(table if len(table) == 1 else table[samples] for table in tables),
    }
