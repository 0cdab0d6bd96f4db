"""One step of generation after a prompt was shortened: each layer after a cut gets a mask of its own length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastsam3d.mllm.dropping.prefill import Kept
from fastsam3d.mllm.dropping.refusals import refuse_rows
from fastsam3d.mllm.dropping.token_dropping import as_additive


@dataclass(frozen=True)
class Shortened:
    """What is remembered about a cache whose layers have unequal lengths.

    Attributes:
        kept: cuts at which tokens left, ascending by layer.
        length: columns of the prompt before any cut.
    """

    kept: Sequence[Kept]
    length: int

    def generated(self, cache: Any) -> int:
        """Number of generated tokens that the cache holds."""
        first = self.kept[0]
        return int(cache.get_seq_length(first.layer)) - first.valid.shape[1]


class Decoding:
    """One step of generation.

    Args:
        shortened: what is remembered about the cache.
        cache: of the call.
        rows: rows of the batch.
        additive: whether masks are added to attention logits; else they are bool.

    Raises:
        UserError: the batch has another number of rows than the prompt had.
    """

    def __init__(self, shortened: Shortened, cache: Any, rows: int, additive: bool) -> None:
        refuse_rows(len(shortened.kept[0].valid), rows)
        self._cuts, self._additive = shortened.kept, additive
        self._generated = shortened.generated(cache)
        self._masks: dict[int, Tensor | None] = {}

    def enter(self, index: int, hidden: Tensor, given: dict[str, Any], cache: Any) -> tuple[Tensor, dict[str, Any]]:
        """Replaces the mask of a layer; for the arguments see `Prefill.enter`."""
        cuts = [cut for cut in self._cuts if cut.layer <= index]
        if not cuts:
            return hidden, given
        cut = cuts[-1]
        if cut.layer not in self._masks:
            self._masks[cut.layer] = self._mask(cut, hidden)
        return hidden, given | {"attention_mask": self._masks[cut.layer]}

    def _mask(self, cut: Kept, hidden: Tensor) -> Tensor | None:
        if cut.full:
            return None  # one query sees everything: no mask means that in both implementations
        new = cut.valid.new_ones(len(cut.valid), self._generated + hidden.shape[1])
        seen = torch.cat([cut.valid, new], dim=1)[:, None, None]
        return as_additive(seen, hidden.dtype) if self._additive else seen
