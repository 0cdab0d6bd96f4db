"""Attention weights of single rows, without the S x S matrix that a whole layer would need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fastsam3d.basics.suggestions import suggestion
from fastsam3d.errors import UserError
from fastsam3d.mllm.spans import Layout

ROW_SETS = ("text", "last")

@dataclass(frozen=True)
class RowSet:
    """Which rows of the attention of a prompt count: text after the last visual token, or the end of the prompt.

    Each number is one for all samples, or a sequence with one for each sample.

    Attributes:
        which: "text": all rows after the visual tokens; "last": the last `count` rows.
        skip_first, skip_last: for "text": rows at its beginning and at its end that do not count, for instance the end
            of the instruction and the words that ask for an answer.
        count: for "last": number of rows, for instance those of an answer.

    Raises:
        UserError: `which` is something else.
    """

    which: str = "text"
    skip_first: int | Sequence[int] = 0
    skip_last: int | Sequence[int] = 0
    count: int | Sequence[int] = 1

    def __post_init__(self) -> None:
        if self.which not in ROW_SETS:
            raise UserError(f"there is no set of rows {self.which!r}. {suggestion(str(self.which), ROW_SETS)}")

    def weights(self, layout: Layout) -> Tensor:
        """Weight of each row, (B, S) float32, summing to 1 for a sample.

        Where no row of the text is left, the last row counts.
        """
        live, length = layout.live, layout.live.shape[1]
        columns = torch.arange(length, device=live.device)

        def column(number: int | Sequence[int]) -> Tensor:
            return torch.as_tensor(number, device=live.device).view(-1, 1)

        if self.which == "last":
            chosen = live & (columns >= length - column(self.count))
        else:
            first = layout.last_visual[:, None] + 1 + column(self.skip_first)
            chosen = live & (columns >= first) & (columns < length - column(self.skip_last))
        chosen = torch.where(chosen.any(1, keepdim=True), chosen, columns == length - 1)
        return chosen / chosen.sum(1, keepdim=True)


def attention_of_rows(queries: Tensor, keys: Tensor, allowed: Tensor, scaling: float) -> Tensor:
    """Attention weights of some rows, averaged over the heads.

    Args:
        queries: (B, heads, r, d), rotated.
        keys: (B, key heads, S, d), rotated. Each key head serves heads / key heads query heads that follow one another.
        allowed: (B, r, S) bool: the row may see the key.
        scaling: factor of the logits.

    Returns:
        (B, r, S) float32; each row sums to 1.
    """
    batch, heads, rows, size = queries.shape
    shared = keys.shape[1]
    grouped = queries.reshape(batch, shared, heads // shared * rows, size)
    logits = (grouped @ keys.transpose(-1, -2)).float() * scaling
    logits = logits.view(batch, heads, rows, -1).masked_fill(~allowed[:, None], float("-inf"))
    return logits.softmax(-1).mean(1)


def rotated(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Applies the rotary position embedding (Su et al., arXiv 2104.09864); the two halves of a vector form its pairs.

    Args:
        states: (B, heads, S, d).
        cos, sin: (B or 1, S, d).

    Returns:
        (B, heads, S, d).
    """
    first, second = states.chunk(2, dim=-1)
    return states * cos[:, None] + torch.cat((-second, first), dim=-1) * sin[:, None]
