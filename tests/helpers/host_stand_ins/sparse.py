"""Sparse tensors and their layers, in the manner of SAM 3D Objects and TRELLIS, written from the architecture facts.

Small, for one machine and no compiled extension. What matters is what the hosts see: names, caches, dense masks, tables
that are rebuilt in every layer.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from fastsam3d.modules.sparse_tensor import SparseIndex

ATTN = "sdpa"


class Data:
    """What sparse convolutions share along a chain of layers."""

    def __init__(self, indice_dict=None):
        self.indice_dict = {} if indice_dict is None else indice_dict


class SparseTensor:
    def __init__(self, feats, coords, shape=None, layout=None, data=None, cache=None):
        self.feats, self.coords = feats, coords
        batch = int(coords[:, 0].max()) + 1 if shape is None else shape[0]
        self.shape = torch.Size([batch, *feats.shape[1:]])
        if layout is None:
            ends = torch.bincount(coords[:, 0].long(), minlength=batch).cumsum(0).tolist()
            layout = [slice(a, b) for a, b in zip([0, *ends[:-1]], ends, strict=True)]
        self.layout = layout
        self.data = Data() if data is None else data
        self._cache = {} if cache is None else cache

    def replace(self, feats, coords=None):
        coords = self.coords if coords is None else coords
        return SparseTensor(feats, coords, self.shape, self.layout, Data(self.data.indice_dict), self._cache)

    def get_spatial_cache(self, name):
        return self._cache.get(name)

    def register_spatial_cache(self, name, value):
        self._cache[name] = value

    def type(self, dtype):
        return self.replace(self.feats.type(dtype))

    def to(self, device):
        return self.replace(self.feats.to(device), self.coords.to(device))

    @property
    def device(self):
        return self.feats.device

    def _with(self, other, function):
        return self.replace(function(self.feats, other.feats if isinstance(other, SparseTensor) else other))

    def __add__(self, other):
        return self._with(other, torch.add)

    def __sub__(self, other):
        return self._with(other, torch.sub)

    def __mul__(self, other):
        return self._with(other, torch.mul)

    __rmul__ = __mul__
    __radd__ = __add__


class Linear(nn.Linear):
    def forward(self, x):
        return x.replace(super().forward(x.feats))


class SubmanifoldConvolution(nn.Module):
    """Keeps its neighbour table under `indice_key` in the dict that travels with the tensor, if it has a key."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(27, inputs, outputs) * 0.2 / (12 * inputs) ** 0.5)
        self.subm, self.indice_key, self.tables_built = True, None, 0

    def forward(self, x):
        known = dict(x.data.indice_dict)
        table = known.get(self.indice_key) if self.indice_key is not None else None
        if table is None:
            table = SparseIndex(x.coords).neighbours()
            self.tables_built += 1
            if self.indice_key is not None:
                known[self.indice_key] = table
        padded = torch.cat([x.feats, x.feats.new_zeros(1, x.feats.shape[1])])
        out = x.replace(torch.einsum("nkc,kcd->nd", padded[table], self.weight.to(x.feats.dtype)))
        out.data = Data(known)
        return out


class SparseConvolution(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.conv = SubmanifoldConvolution(inputs, outputs)

    def forward(self, x):
        return self.conv(x)


class Downsample(nn.Module):
    factor = 2

    def forward(self, x):
        coords = x.coords.clone()
        coords[:, 1:] //= 2
        cells, inverse = torch.unique(coords, dim=0, return_inverse=True)
        total = x.feats.new_zeros(len(cells), x.feats.shape[1])
        pooled = torch.scatter_reduce(total, 0, inverse[:, None].expand_as(x.feats), x.feats, reduce="mean")
        out = SparseTensor(pooled, cells, cache=x._cache)
        for name, value in (("coords", x.coords), ("layout", x.layout), ("idx", inverse)):
            out.register_spatial_cache(f"upsample_(2, 2, 2)_{name}", value)
        return out


class Upsample(nn.Module):
    factor = 2

    def forward(self, x):
        coords, layout, inverse = (
            x.get_spatial_cache(f"upsample_(2, 2, 2)_{n}") for n in ("coords", "layout", "idx")
        )
        return SparseTensor(x.feats[inverse], coords, layout=layout, cache=x._cache)


def masked_attention(q, k, v, q_lengths, k_lengths):
    """Attention of packed objects or windows, kept apart by a mask over all pairs. `[T, H, D]`."""
    mask = torch.full((sum(q_lengths), sum(k_lengths)), float("-inf"), dtype=q.dtype)
    row = column = 0
    for a, b in zip(q_lengths, k_lengths, strict=True):
        mask[row : row + a, column : column + b] = 0
        row, column = row + a, column + b
    q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)[0].transpose(0, 1)


def windowed_attention(x, qkv, window, shift):
    cells = (x.coords.clone().long() + torch.tensor([0, shift, shift, shift])) // torch.tensor([1] + [window] * 3)
    _, order_of, counts = torch.unique(cells, dim=0, return_inverse=True, return_counts=True)
    order = torch.argsort(order_of, stable=True)
    out = masked_attention(*qkv[order].unbind(1), counts.tolist(), counts.tolist())
    return out[torch.argsort(order)]


class HeadNorm(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.scale, self.gamma = width**0.5, nn.Parameter(torch.randn(heads, width).abs() + 0.5)

    def forward(self, x):
        return (F.normalize(x.float(), dim=-1) * self.gamma * self.scale).to(x.dtype)


class SparseAttention(nn.Module):
    def __init__(self, channels, heads, context=None, mode="full", window=None, shift=None, norm=False):
        super().__init__()
        self.num_heads, self.attn_mode, self.qk_rms_norm, self.use_rope = heads, mode, norm, False
        self.window_size, self.shift_window, self.is_cross = window, shift, context is not None
        if context is None:
            self.to_qkv = nn.Linear(channels, 3 * channels)
        else:
            self.to_q, self.to_kv = nn.Linear(channels, channels), nn.Linear(context, 2 * channels)
        if norm:
            self.q_rms_norm, self.k_rms_norm = (HeadNorm(channels // heads, heads) for _ in range(2))
        self.to_out = nn.Linear(channels, channels)

    def forward(self, x, context=None):
        lengths = [part.stop - part.start for part in x.layout]
        if self.is_cross:
            q = self.to_q(x.feats).unflatten(-1, (self.num_heads, -1))
            k, v = self.to_kv(context).flatten(0, 1).unflatten(-1, (2, self.num_heads, -1)).unbind(1)
            out = masked_attention(q, k, v, lengths, [context.shape[1]] * len(lengths))
        else:
            q, k, v = self.to_qkv(x.feats).unflatten(-1, (3, self.num_heads, -1)).unbind(1)
            if self.qk_rms_norm:
                q, k = self.q_rms_norm(q), self.k_rms_norm(k)
            if self.attn_mode == "windowed":
                out = windowed_attention(x, torch.stack([q, k, v], 1), self.window_size, self.shift_window)
            else:
                out = masked_attention(q, k, v, lengths, lengths)
        return x.replace(self.to_out(out.flatten(1)))
