"""Takes tokens out of a batch: which columns stay, and the masks that go with them.

Kept tokens move to the right, in their old order, so the last column is still the last token of each prompt. A
sample that keeps fewer tokens than another has empty places on the left. Shapes: B rows, S columns before, R columns
after.
"""

from __future__ import annotations

import torch
from torch import Tensor


def kept_columns(keep: Tensor) -> tuple[Tensor, Tensor]:
    """Columns of the tokens that stay.

    Args:
        keep: (B, S) bool: tokens that stay.

    Returns:
        The columns (B, R), ascending among the kept tokens, and which of them hold a kept token (B, R) bool. R is the
        number of kept tokens of the sample that keeps most.
    """
    count = max(int(keep.sum(1).max()), 1)
    columns = keep.int().argsort(dim=1, stable=True)[:, -count:]
    return columns, keep.gather(1, columns)


def take(values: Tensor, columns: Tensor) -> Tensor:
    """Takes columns out of values. (B or 1, S, ...) and (B, R) -> (B, R, ...)."""
    values = values.expand(len(columns), *values.shape[1:])
    index = columns.to(values.device).view(*columns.shape, *(1,) * (values.dim() - 2))
    return values.gather(1, index.expand(*columns.shape, *values.shape[2:]))


def allowed_pairs(mask: Tensor | None, columns: Tensor | None, valid: Tensor) -> Tensor:
    """Which token sees which, among those that stay.

    Args:
        mask: (B or 1, 1, S, S) of all tokens, bool or additive; None means causal.
        columns: (B, R) columns that stay; None where every column stays.
        valid: (B, R) bool: columns that hold a token which may be seen.

    Returns:
        (B, 1, R, R) bool. A row that would see nothing sees itself, because a softmax over nothing is not a number.
    """
    rows, count = valid.shape
    if mask is None:
        pairs = torch.ones(count, count, dtype=torch.bool, device=valid.device).tril().expand(rows, count, count)
    else:
        pairs = as_bool(mask)[:, 0].to(valid.device)
        pairs = pairs.expand(rows, *pairs.shape[1:])
        if columns is not None:
            pairs = take(take(pairs, columns).transpose(1, 2), columns).transpose(1, 2)
    pairs = pairs & valid[:, None, :]
    itself = torch.eye(count, dtype=torch.bool, device=valid.device)
    return (pairs | (itself & ~pairs.any(-1, keepdim=True)))[:, None]


def as_bool(mask: Tensor) -> Tensor:
    """A mask as bool, True where a key is seen. An additive mask hides a key with (nearly) the lowest number."""
    return mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2


def as_additive(pairs: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask that is added to attention logits: 0 where a key is seen, else the lowest number."""
    lowest = torch.finfo(dtype).min
    return torch.where(pairs, torch.zeros((), dtype=dtype, device=pairs.device), lowest)
