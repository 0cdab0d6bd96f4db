"""Small building blocks shared by every network of the SAM 3D Objects architecture.

Parameter names and shapes are those of the official checkpoints (docs/facts.md, section S10).
"""

from __future__ import annotations

import math

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F


class LayerNorm32(nn.LayerNorm):
    """Layer normalisation over the last axis, computed in fp32 whatever the input's type. `[..., C] -> [..., C]`."""

    def __init__(self, channels: int, affine: bool = True, eps: float = 1e-6) -> None:
        super().__init__(channels, eps=eps, elementwise_affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        # Under autocast, `layer_norm` already runs in fp32; a cast there would only cost memory traffic.
        if x.dtype == torch.float32:
            return super().forward(x)
        weight = None if self.weight is None else self.weight.float()
        bias = None if self.bias is None else self.bias.float()
        return F.layer_norm(x.float(), self.normalized_shape, weight, bias, self.eps).to(x.dtype)


class MultiHeadRMSNorm(nn.Module):
    """Per-head normalisation of queries or keys: `x / ||x|| * gamma * sqrt(head width)`. `[..., H, D]`."""

    def __init__(self, head_channels: int, heads: int) -> None:
        super().__init__()
        self.scale = head_channels**0.5
        self.gamma = nn.Parameter(torch.ones(heads, head_channels))

    def forward(self, x: Tensor) -> Tensor:
        return (F.normalize(x.float(), dim=-1) * self.gamma * self.scale).to(x.dtype)


class FeedForward(nn.Module):
    """Two-layer perceptron with the tanh form of GELU. `[..., C] -> [..., C]`."""

    def __init__(self, channels: int, ratio: float = 4.0) -> None:
        super().__init__()
        hidden = int(channels * ratio)
        self.mlp = nn.Sequential(
            nn.Linear(channels, hidden), nn.GELU(approximate="tanh"), nn.Linear(hidden, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(x)


class SwiGLU(nn.Module):
    """Gated feed-forward without bias, `w2(silu(w1 x) * w3 x)`: projects condition tokens to the shared width.

    The hidden width is two thirds of four times the output width, rounded up to a multiple of 256
    (docs/facts.md, section S3); `multiple` lowers that granularity for small models.
    """

    def __init__(self, in_channels: int, out_channels: int, multiple: int = 256) -> None:
        super().__init__()
        hidden = int(4 * out_channels * 2 / 3)
        hidden = -(-hidden // multiple) * multiple
        self.w1 = nn.Linear(in_channels, hidden, bias=False)
        self.w2 = nn.Linear(hidden, out_channels, bias=False)
        self.w3 = nn.Linear(in_channels, hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class TimestepEmbedder(nn.Module):
    """Embeds a scalar per sample: `[cos, sin]` of 128 frequencies, then a two-layer perceptron. `[B] -> [B, C]`."""

    def __init__(self, channels: int, frequency_channels: int = 256) -> None:
        super().__init__()
        self.frequency_channels = frequency_channels
        self.mlp = nn.Sequential(
            nn.Linear(frequency_channels, channels), nn.SiLU(), nn.Linear(channels, channels)
        )

    def forward(self, t: Tensor) -> Tensor:
        half = self.frequency_channels // 2
        exponents = torch.arange(half, dtype=torch.float32, device=t.device) / half
        angles = t.reshape(-1, 1).float() * torch.exp(-math.log(10000.0) * exponents)
        embedding = torch.cat([angles.cos(), angles.sin()], dim=-1)
        return self.mlp(embedding.to(self.mlp[0].weight.dtype))


def sinusoidal_position_embedding(coords: Tensor, channels: int) -> Tensor:
    """Fixed sine and cosine embedding of integer 3D positions. `[..., 3] -> [..., channels]`, fp32.

    Per axis `channels // 6` frequencies `10000^(-i / n)`; layout `[sin x, cos x, sin y, cos y, sin z, cos z]`,
    padded with zeros to `channels` (docs/facts.md, section S4.3).
    """
    frequencies = channels // 3 // 2
    exponents = torch.arange(frequencies, dtype=torch.float32, device=coords.device) / frequencies
    angles = coords.float().unsqueeze(-1) * (10000.0**-exponents)
    embedding = torch.cat([angles.sin(), angles.cos()], dim=-1)
    embedding = rearrange(embedding, "... coordinate wave -> ... (coordinate wave)")
    return F.pad(embedding, (0, channels - embedding.shape[-1]))


def grid_positions(resolution: int, device: torch.device | None = None) -> Tensor:
    """Integer positions of a cubic grid in token order `x * R^2 + y * R + z`. `[R^3, 3]`, int64."""
    axis = torch.arange(resolution, device=device)
    positions = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)
    return rearrange(positions, "x y z coordinate -> (x y z) coordinate")


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Adaptive layer norm: `x (1 + scale) + shift`. `x [B, T, C]`, `shift` and `scale` `[B, C]`."""
    return x * (1 + scale.unsqueeze(1)) + shift.unsqueeze(1)
