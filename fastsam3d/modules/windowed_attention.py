"""Windowed self-attention on voxels and the transformer trunk of the latent decoders."""

from __future__ import annotations

import importlib.util

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from fastsam3d.modules.layers import FeedForward, LayerNorm32, sinusoidal_position_embedding
from fastsam3d.modules.sparse_tensor import PackedWindows, SparseIndex, SparseTensor, Windows


def attend_in_windows(qkv: Tensor, windows: Windows) -> Tensor:
    """Attention inside each window. Queries, keys and values `[N, 3, H, D]` -> `[N, H * D]`.

    Windows of similar size are padded to one batch, so the work grows with the number of voxels, not with
    its square.
    """
    outputs = []
    for rows, valid in windows.buckets:
        q, k, v = rearrange(qkv[rows], "window voxel qkv head d -> qkv window head voxel d")
        mask = None if valid is None else valid[:, None, None, :]
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        outputs.append(rearrange(out, "window head voxel d -> (window voxel) (head d)"))
    return torch.cat(outputs).index_select(0, windows.restore)


def attend_in_packed_windows(qkv: Tensor, windows: PackedWindows) -> Tensor:
    """The same through one kernel of variable sequence length, where `has_packed_kernel`."""
    from torch.nn.attention.varlen import varlen_attn

    q, k, v = qkv.index_select(0, windows.order).transpose(0, 1).contiguous().unbind(0)
    out = varlen_attn(q, k, v, windows.offsets, windows.offsets, windows.longest, windows.longest)
    return out.flatten(1).index_select(0, windows.restore)


def has_packed_kernel(qkv: Tensor) -> bool:
    """Tells whether PyTorch has a fused kernel of variable sequence length for such tensors (from release 2.10 on)."""
    if qkv.device.type != "cuda" or qkv.dtype not in (torch.float16, torch.bfloat16) or qkv.requires_grad:
        return False
    known = importlib.util.find_spec("torch.nn.attention.varlen") is not None
    return known and torch.cuda.get_device_capability(qkv.device) >= (8, 0)


class WindowedSelfAttention(nn.Module):
    """Multi-head self-attention inside windows of voxels, without normalisation of queries and keys.

    `[N, C] -> [N, C]` on the same voxels.
    """

    def __init__(self, channels: int, heads: int, window: int, shift: int) -> None:
        super().__init__()
        self.heads, self.window, self.shift = heads, window, shift
        self.to_qkv = nn.Linear(channels, 3 * channels)
        self.to_out = nn.Linear(channels, channels)

    def forward(self, x: SparseTensor) -> SparseTensor:
        qkv = self.to_qkv(x.feats).unflatten(-1, (3, self.heads, -1))
        if has_packed_kernel(qkv):
            attended = attend_in_packed_windows(qkv, x.index.packed_windows(self.window, self.shift))
        else:
            attended = attend_in_windows(qkv, x.index.windows(self.window, self.shift))
        return x.replace(self.to_out(attended))


class WindowedTransformerBlock(nn.Module):
    """Pre-norm transformer block on voxels with windowed attention: `[N, C] -> [N, C]`."""

    def __init__(self, channels: int, heads: int, window: int, shift: int, mlp_ratio: float = 4.0) -> None:
        super().__init__()
        self.norm1 = LayerNorm32(channels, affine=False)
        self.norm2 = LayerNorm32(channels, affine=False)
        self.attn = WindowedSelfAttention(channels, heads, window, shift)
        self.mlp = FeedForward(channels, mlp_ratio)

    def forward(self, x: SparseTensor) -> SparseTensor:
        x = x.replace(x.feats + self.attn(x.replace(self.norm1(x.feats))).feats)
        return x.replace(x.feats + self.mlp(self.norm2(x.feats)))


class SparseTransformerTrunk(nn.Module):
    """Common part of the latent decoders (docs/facts.md, section S8).

    Args:
        in_channels: channels per voxel of the input.
        model_channels: width.
        num_blocks: blocks; odd ones see windows shifted by half a window.
        num_heads: attention heads.
        window: side of the attention windows in voxels.
        dtype: type of the blocks; the input layer stays in fp32.
    """

    def __init__(
        self,
        in_channels: int,
        model_channels: int,
        num_blocks: int,
        num_heads: int,
        window: int = 8,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.model_channels = model_channels
        self.input_layer = nn.Linear(in_channels, model_channels)
        self.blocks = nn.ModuleList(
            WindowedTransformerBlock(model_channels, num_heads, window, window // 2 * (i % 2))
            for i in range(num_blocks)
        )
        self.set_dtype(dtype)

    def set_dtype(self, dtype: torch.dtype) -> None:
        """Converts the blocks' matrices."""
        self.dtype = dtype
        self.blocks.to(dtype)

    def make_index(self, coords: Tensor) -> SparseIndex:
        """Index tables of a voxel set; replace it on the instance to share tables."""
        return SparseIndex(coords)

    def run_trunk(self, feats: Tensor, coords: Tensor) -> SparseTensor:
        """`feats [N, C_in]`, `coords [N, 4]` -> features `[N, model_channels]` in the blocks' type."""
        coords = coords.to(feats.device)
        position = sinusoidal_position_embedding(coords[:, 1:], self.model_channels)
        h = SparseTensor((self.input_layer(feats) + position).to(self.dtype), self.make_index(coords))
        for block in self.blocks:
            h = block(h)
        return h
