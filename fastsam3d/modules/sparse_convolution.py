"""Submanifold sparse convolution in plain PyTorch.

Weights are stored as spconv stores them, `[C_out, k_x, k_y, k_z, C_in]`, and applied as cross-correlation
over occupied sites (docs/facts.md, section S7). Rows of features are gathered for a block of
sites at a time and multiplied in one matrix product: on CPU this beats adding up one product per offset,
and never holds more than one block of the 27-fold gathered features.
"""

from __future__ import annotations

import math

import torch
from einops import rearrange
from torch import Tensor, nn

from fastsam3d.modules.sparse_tensor import Pooling, SparseIndex, SparseTensor

_BLOCK_ELEMENTS = {"cpu": 1 << 20, "cuda": 1 << 27}


class _GatherConvolution(torch.autograd.Function):
    """`out[i] = sum_k feats[table[i, k]] @ weight[k]`, rows beyond the last feature count as zero."""

    @staticmethod
    def forward(ctx, feats: Tensor, weight: Tensor, table: Tensor, mirror: Tensor) -> Tensor:
        ctx.save_for_backward(feats, weight, table, mirror)
        return _gather_product(feats, weight.flatten(0, 1), table)

    @staticmethod
    def backward(ctx, grad: Tensor):
        feats, weight, table, mirror = ctx.saved_tensors
        grad = grad.contiguous()
        grad_feats = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_feats = _gather_product(grad, weight.transpose(1, 2).flatten(0, 1), mirror)
        if ctx.needs_input_grad[1]:
            padded = _padded(feats)
            total = torch.zeros(weight.shape[0] * weight.shape[1], weight.shape[2], device=grad.device)
            for begin, end in _blocks(len(table), table.shape[1] * feats.shape[1], grad.device.type):
                rows = padded.index_select(0, table[begin:end].flatten()).view(end - begin, -1)
                total += rows.t() @ grad[begin:end]
            grad_weight = total.view_as(weight).to(weight.dtype)
        return grad_feats, grad_weight, None, None


class _GatherSum(torch.autograd.Function):
    """`out[i] = sum_k product[cell of table[i, k], k]`: the gathering half of a convolution."""

    @staticmethod
    def forward(ctx, product: Tensor, inverse: Tensor, table: Tensor) -> Tensor:
        ctx.save_for_backward(inverse, table)
        ctx.cells = len(product)
        _, taps, width = product.shape
        absent = inverse.new_full((1,), ctx.cells)
        rows = torch.cat([inverse, absent])[table] * taps + torch.arange(taps, device=table.device)
        rows.clamp_(max=ctx.cells * taps)
        flat = _padded(product.flatten(0, 1))
        out = product.new_empty(len(table), width)
        for begin, end in _blocks(len(table), taps * width, product.device.type):
            out[begin:end] = (
                flat.index_select(0, rows[begin:end].flatten()).view(end - begin, taps, width).sum(1)
            )
        return out

    @staticmethod
    def backward(ctx, grad: Tensor):
        inverse, table = ctx.saved_tensors
        taps, width = table.shape[1], grad.shape[1]
        padded = _padded(grad)
        total = grad.new_zeros(ctx.cells, taps * width, dtype=torch.float32)
        mirror = table.flip(1)
        for begin, end in _blocks(len(table), taps * width, grad.device.type):
            rows = padded.index_select(0, mirror[begin:end].flatten()).view(end - begin, -1)
            total.index_add_(0, inverse[begin:end], rows.float())
        return total.view(ctx.cells, taps, width).to(grad.dtype), None, None


def _padded(feats: Tensor) -> Tensor:
    return torch.cat([feats, feats.new_zeros(1, feats.shape[1])])


def _blocks(rows: int, width: int, device: str) -> list[tuple[int, int]]:
    size = max(64, _BLOCK_ELEMENTS.get(device, 1 << 24) // width)
    return [(begin, min(begin + size, rows)) for begin in range(0, rows, size)]


def _gather_product(feats: Tensor, weight: Tensor, table: Tensor) -> Tensor:
    padded = _padded(feats)
    out = feats.new_empty(len(table), weight.shape[1])
    for begin, end in _blocks(len(table), weight.shape[0], feats.device.type):
        rows = padded.index_select(0, table[begin:end].flatten()).view(end - begin, -1)
        torch.mm(rows, weight, out=out[begin:end])
    return out


def _compute_dtype(feats: Tensor) -> torch.dtype:
    kind = feats.device.type
    # Sizes can also be studied on the meta device, which has no autocast.
    mixed = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    return torch.get_autocast_dtype(kind) if mixed else feats.dtype


def gather_convolution(feats: Tensor, weight: Tensor, table: Tensor, mirror: Tensor | None = None) -> Tensor:
    """Sum over K taps of gathered rows times the tap's matrix.

    Args:
        feats: `[N, C_in]`.
        weight: `[K, C_in, C_out]`.
        table: row of tap k for site i `[N, K]`; `N` for an empty site.
        mirror: rows of the opposite taps `[N, K]`, which the gradient uses; None: the columns in reverse.

    Returns:
        `[N, C_out]`, in autocast's type where autocast is on.
    """
    dtype = _compute_dtype(feats)
    if not torch.is_grad_enabled():
        return _gather_product(feats.to(dtype), weight.to(dtype).flatten(0, 1), table)
    mirror = table.flip(1) if mirror is None else mirror
    return _GatherConvolution.apply(feats.to(dtype), weight.to(dtype), table, mirror)


class SubMConvolution(nn.Module):
    """The parameters `weight [C_out, k, k, k, C_in]` and `bias [C_out]` of one submanifold convolution."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.kernel = in_channels, out_channels, kernel
        self.weight = nn.Parameter(torch.empty(out_channels, kernel, kernel, kernel, in_channels))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        nn.init.normal_(self.weight, std=1.0 / math.sqrt(in_channels * kernel**3))

    def taps(self) -> Tensor:
        """Weight as `[k^3, C_in, C_out]`, taps in the order of `SparseIndex.neighbours`."""
        return rearrange(self.weight, "c_out x y z c_in -> (x y z) c_in c_out")

    def pointwise(self, feats: Tensor) -> Tensor:
        """The 1 x 1 x 1 convolution.

        spconv reads the stored buffer as `[C_in, C_out]` without transposing it; official weights were
        trained that way, so this is part of the format (docs/facts.md, section S8.2).
        """
        dtype = _compute_dtype(feats)
        matrix = self.weight.reshape(self.in_channels, self.out_channels)
        return feats.to(dtype) @ matrix.to(dtype) + self.bias.to(dtype)

    def apply_to(self, feats: Tensor, index: SparseIndex) -> Tensor:
        """Convolves `feats [N, C_in]` on the voxels of `index`; `[N, C_out]`."""
        if self.kernel == 1:
            return self.pointwise(feats)
        table = index.neighbours()
        out = gather_convolution(feats, self.taps(), table)
        return out + self.bias.to(out.dtype)

    def apply_to_children(self, feats: Tensor, index: SparseIndex) -> Tensor:
        """Convolves `feats [N, C_in]`, repeated to all children, on the children: `[8 N, C_out]`.

        Along an axis, the three taps of a child meet only two different parents, so the taps that meet the
        same one are summed: 8 products per child instead of 27, for the same result.
        """
        table = index.neighbours()
        outputs = []
        for child in [(x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 1)]:
            weight = self.weight.permute(1, 2, 3, 4, 0)
            for axis, offset in enumerate(child):
                first, middle, last = weight.unbind(axis)
                pair = (first, middle + last) if offset == 0 else (first + middle, last)
                weight = torch.stack(pair, dim=axis)
            columns = [
                9 * (x + child[0]) + 3 * (y + child[1]) + (z + child[2])
                for x in (0, 1) for y in (0, 1) for z in (0, 1)
            ]  # fmt: skip
            mirror = [26 - column for column in columns]
            outputs.append(
                gather_convolution(feats, weight.flatten(0, 2), table[:, columns], table[:, mirror])
            )
        out = torch.stack(outputs, dim=1).flatten(0, 1)
        return out + self.bias.to(out.dtype)

    def apply_to_copies(self, feats: Tensor, pooling: Pooling, index: SparseIndex) -> Tensor:
        """Convolves `feats [T, C_in]` of cells, copied to their voxels, on the voxels: `[N, C_out]`.

        Each cell is multiplied with the taps once, before it is copied to its voxels.
        """
        dtype = _compute_dtype(feats)
        taps = self.taps()
        matrix = rearrange(taps, "tap c_in c_out -> c_in (tap c_out)").to(dtype)
        product = (feats.to(dtype) @ matrix).unflatten(1, (taps.shape[0], taps.shape[2]))
        out = _GatherSum.apply(product, pooling.inverse, index.neighbours())
        return out + self.bias.to(out.dtype)


class SparseConvolution(nn.Module):
    """A submanifold convolution under the official name `conv`: `[N, C_in] -> [N, C_out]` on the same voxels."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 3) -> None:
        super().__init__()
        self.conv = SubMConvolution(in_channels, out_channels, kernel)

    def forward(self, x: SparseTensor) -> SparseTensor:
        return x.replace(self.conv.apply_to(x.feats, x.index))


class GroupNorm32(nn.GroupNorm):
    """Group normalisation over all voxels of an object, in fp32 whatever the input's type. `[N, C] -> [N, C]`."""

    def apply_to(self, feats: Tensor, index: SparseIndex) -> Tensor:
        """Normalises `feats [N, C]` object by object; `[N, C]`."""
        parts = [
            nn.functional.group_norm(
                part.float().t().unsqueeze(0),
                self.num_groups,
                self.weight.float(),
                self.bias.float(),
                self.eps,
            )[0].t()
            for part in feats.split(index.batch_sizes())
        ]
        return (parts[0] if len(parts) == 1 else torch.cat(parts)).to(feats.dtype)

    def forward(self, x: SparseTensor) -> SparseTensor:  # type: ignore[override]
        return x.replace(self.apply_to(x.feats, x.index))
