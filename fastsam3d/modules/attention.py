"""Attention modules and the modulated transformer block of both generators.

Names follow the official checkpoints: `to_qkv`, `q_rms_norm.gamma`, `to_q`, `to_kv`, `to_out` ...
(docs/facts.md, sections S4.3, S7 and S10).
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from fastsam3d.modules.elementwise import operations_for
from fastsam3d.modules.layers import FeedForward, LayerNorm32, MultiHeadRMSNorm


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Scaled dot-product attention. `q [B, Tq, H, D]`, `k` and `v` `[B, Tk, H, D]` -> `[B, Tq, H * D]`."""
    # Every block of every step comes here and to the projections below. `rearrange` would read better, but takes a few
    # microseconds a call, which would add a third to the attention of the four layout tokens.
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    if q.requires_grad and q.device.type == "cpu":
        # The backward pass of the fused CPU kernel takes three times as long as these three operations.
        weights = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        out = weights.softmax(dim=-1).to(v.dtype) @ v  # the kernel sums in fp32
    else:
        out = F.scaled_dot_product_attention(q, k, v)
    return out.transpose(1, 2).flatten(2)


class SelfAttention(nn.Module):
    """Full multi-head self-attention of one stream. `[B, T, C] -> [B, T, C]`."""

    fused = True

    def __init__(self, channels: int, heads: int, qk_rms_norm: bool = True) -> None:
        super().__init__()
        self.heads = heads
        self.to_qkv = nn.Linear(channels, 3 * channels)
        self.qk_rms_norm = qk_rms_norm
        if qk_rms_norm:
            self.q_rms_norm = MultiHeadRMSNorm(channels // heads, heads)
            self.k_rms_norm = MultiHeadRMSNorm(channels // heads, heads)
        self.to_out = nn.Linear(channels, channels)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Projects to normalised queries, keys and values `[B, T, H, D]`; carving keeps those of unchanged tokens."""
        qkv = self.to_qkv(x).unflatten(-1, (3, self.heads, -1))
        q, k, v = qkv.unbind(dim=2)
        if self.qk_rms_norm:
            q, k = operations_for(qkv, self.fused).normalise_heads(qkv, self.q_rms_norm, self.k_rms_norm)
        return q, k, v

    def forward(self, x: Tensor) -> Tensor:
        return self.to_out(attend(*self.project(x)))


class CrossAttention(nn.Module):
    """Multi-head attention from tokens to condition tokens, without normalisation of queries and keys.

    `x [B, T, C]`, `context [B or B / r, L, C_context]` -> `[B, T, C]`. With fewer contexts than samples, each
    context serves `r` consecutive samples and its keys and values are projected once.
    """

    def __init__(self, channels: int, context_channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(channels, channels)
        self.to_kv = nn.Linear(context_channels, 2 * channels)
        self.to_out = nn.Linear(channels, channels)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        q = self.to_q(x).unflatten(-1, (self.heads, -1))
        k, v = self.to_kv(context).unflatten(-1, (2, self.heads, -1)).unbind(dim=2)
        if context.shape[0] != x.shape[0]:
            repeats = x.shape[0] // context.shape[0]
            k, v = k.repeat_interleave(repeats, dim=0), v.repeat_interleave(repeats, dim=0)
        return self.to_out(attend(q, k, v))


class ModulatedTransformerCrossBlock(nn.Module):
    """Transformer block with time modulation, self-attention, cross-attention and feed-forward (one stream).

    `h [B, T, C]`, `t_emb [B, C]`, `cond [B, L, C_cond]` -> `[B, T, C]`
    (docs/facts.md, section S4.3, for one stream).
    """

    fused = True

    def __init__(
        self, channels: int, context_channels: int, heads: int, mlp_ratio: float = 4.0, qk_rms_norm: bool = True
    ) -> None:
        super().__init__()
        self.norm1 = LayerNorm32(channels, affine=False)
        self.norm2 = LayerNorm32(channels, affine=True)
        self.norm3 = LayerNorm32(channels, affine=False)
        self.self_attn = SelfAttention(channels, heads, qk_rms_norm)
        self.cross_attn = CrossAttention(channels, context_channels, heads)
        self.mlp = FeedForward(channels, mlp_ratio)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(channels, 6 * channels))

    def forward(self, h: Tensor, t_emb: Tensor, cond: Tensor) -> Tensor:
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.adaLN_modulation(t_emb).chunk(6, dim=-1)
        do = operations_for(h, self.fused)
        attended = self.self_attn(do.normalise(h, self.norm1, shift_a, scale_a))
        h, x = do.add_normalise(h, attended, gate_a, self.norm2)
        h, x = do.add_normalise(h, self.cross_attn(x, cond), None, self.norm3, shift_m, scale_m)
        return do.add(h, self.mlp(x), gate_m)
