"""Triton kernels for what lies between the matrix products of a transformer block.

Each reads and writes every number once, where the separate operations of PyTorch do so up to seven times. Imported
only where Triton is installed and a GPU computes; `fastsam3d.modules.elementwise` has the plain twin of each.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _add_normalise(
    h, update, gate, out_h, scale, shift, out,
    tokens, channels, update_batch, update_row, gate_batch, scale_batch, offset, eps,
    ADD: tl.constexpr, GATED: tl.constexpr, NORMALISE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One row of `h + gate * update`, and of its normalised, scaled and shifted form."""
    row = tl.program_id(0).to(tl.int64)
    batch = row // tokens
    column = tl.arange(0, BLOCK)
    inside = column < channels
    x = tl.load(h + row * channels + column, mask=inside, other=0.0).to(tl.float32)
    if ADD:
        place = update + batch * update_batch + (row % tokens) * update_row
        added = tl.load(place + column, mask=inside, other=0.0).to(tl.float32)
        if GATED:
            added *= tl.load(gate + batch * gate_batch + column, mask=inside, other=0.0).to(tl.float32)
        # What is normalised is what is stored, rounded as it is.
        rounded = (x + added).to(out_h.dtype.element_ty)
        tl.store(out_h + row * channels + column, rounded, mask=inside)
        x = rounded.to(tl.float32)
    if NORMALISE:
        mean = tl.sum(x, axis=0) / channels
        centred = tl.where(inside, x - mean, 0.0)
        variance = tl.sum(centred * centred, axis=0) / channels
        factor = tl.load(scale + batch * scale_batch + column, mask=inside, other=0.0).to(tl.float32)
        term = tl.load(shift + batch * scale_batch + column, mask=inside, other=0.0).to(tl.float32)
        y = centred * (1.0 / tl.sqrt(variance + eps)) * (offset + factor) + term
        tl.store(out + row * channels + column, y.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _normalise_heads(
    qkv, gamma_q, gamma_k, out, rows, heads, width, scale, BLOCK_H: tl.constexpr, BLOCK_W: tl.constexpr
):
    """Queries (second axis of the grid 0) or keys (1) of one token, every head divided by its length."""
    row = tl.program_id(0).to(tl.int64)
    which = tl.program_id(1).to(tl.int64)
    size = heads * width
    head = tl.arange(0, BLOCK_H)[:, None]
    column = tl.arange(0, BLOCK_W)[None, :]
    inside = (head < heads) & (column < width)
    place = head * width + column
    x = tl.load(qkv + row * 3 * size + which * size + place, mask=inside, other=0.0).to(tl.float32)
    length = tl.sqrt(tl.sum(x * x, axis=1))
    length = tl.where(length > 1e-12, length, 1e-12)
    if which == 0:
        gamma = tl.load(gamma_q + place, mask=inside, other=0.0).to(tl.float32)
    else:
        gamma = tl.load(gamma_k + place, mask=inside, other=0.0).to(tl.float32)
    y = x / length[:, None] * gamma * scale
    tl.store(out + which * rows * size + row * size + place, y.to(out.dtype.element_ty), mask=inside)


def _batch_stride(x: Tensor) -> int:
    """Distance of the rows of `[B, C]`; 0 where one row serves the whole batch."""
    return x.stride(0) if x.ndim == 2 and x.shape[0] > 1 else 0


def _warps(block: int) -> int:
    return 4 if block <= 2048 else 8


def add_normalise(
    h: Tensor,
    update: Tensor | None,
    gate: Tensor | None,
    norm: tuple[Tensor, Tensor, float, float] | None,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor | None]:
    """`h + gate * update`, and that normalised.

    Args:
        h: `[B, T, C]`, contiguous.
        update: `[B, T, C]`, rows contiguous (they may be one row, repeated); None leaves `h` as it is.
        gate: `[B, C]` or None for ones.
        norm: (scale, shift, offset, eps): the result is `layer_norm(h) * (offset + scale) + shift`, with scale and
            shift `[B, C]` or `[C]`; None where nothing is normalised.
        dtype: of the normalised result.

    Returns:
        The sum in the type of `h`, and the normalised sum or None.
    """
    batch, tokens, channels = h.shape
    out_h = h if update is None else torch.empty_like(h)
    out = None if norm is None else torch.empty(h.shape, dtype=dtype, device=h.device)
    scale, shift, offset, eps = norm if norm is not None else (h, h, 0.0, 0.0)
    _add_normalise[(batch * tokens,)](
        h,
        h if update is None else update,
        h if gate is None else gate,
        out_h,
        scale,
        shift,
        h if out is None else out,
        tokens,
        channels,
        0 if update is None else update.stride(0),
        0 if update is None else update.stride(1),
        0 if gate is None else _batch_stride(gate),
        _batch_stride(scale),
        offset,
        eps,
        ADD=update is not None,
        GATED=gate is not None,
        NORMALISE=norm is not None,
        BLOCK=triton.next_power_of_2(channels),
        num_warps=_warps(triton.next_power_of_2(channels)),
    )
    return out_h, out


def normalise_heads(qkv: Tensor, gamma_q: Tensor, gamma_k: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Normalised queries and keys `[B, T, H, D]` of a joint projection `[B, T, 3, H, D]`, contiguous."""
    batch, tokens, _, heads, width = qkv.shape
    out = torch.empty(2, batch, tokens, heads, width, dtype=qkv.dtype, device=qkv.device)
    _normalise_heads[(batch * tokens, 2)](
        qkv,
        gamma_q,
        gamma_k,
        out,
        batch * tokens,
        heads,
        width,
        scale,
        BLOCK_H=triton.next_power_of_2(heads),
        BLOCK_W=triton.next_power_of_2(width),
        num_warps=4,
    )
    return out[0], out[1]
