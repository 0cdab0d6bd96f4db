"""Point-map embedder: windows of camera-space points to tokens (docs/facts.md, section S3)."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from fastsam3d.sam3d.models.dino import VisionBlock


class PointPatchEmbed(nn.Module):
    """One token per window of a point map; invalid points get a learned token.

    Args:
        input_size: side that the map is resized to (nearest); 256 in the official model.
        patch: side of a window; 8.
        channels, heads: 512, 16 in the official model.

    `forward`: `[B, 3, H, W]`, NaN or infinite where unknown -> `[B, (input_size / patch)^2, channels]`.
    """

    def __init__(self, input_size: int = 256, patch: int = 8, channels: int = 512, heads: int = 16) -> None:
        super().__init__()
        self.input_size = input_size
        self.patch = patch
        self.embed_channels = channels
        windows = input_size // patch
        self.invalid_xyz_token = nn.Parameter(torch.zeros(channels))
        self.pos_embed = nn.Parameter(torch.randn(1, channels, windows, windows) * 0.02)
        self.pos_embed_window = nn.Parameter(torch.randn(1, 1 + patch * patch, channels) * 0.02)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, channels))
        self.point_proj = nn.Linear(3, channels)
        self.blocks = nn.ModuleList([VisionBlock(channels, heads, mlp_ratio=2.0, layer_scale=False)])

    def embed_pointmap_windows(self, pointmap: Tensor) -> tuple[Tensor, int, int]:
        """Point tokens of every window, `[B * windows, patch^2, C]`, with the batch size and windows a side."""
        if pointmap.shape[-1] != self.input_size or pointmap.shape[-2] != self.input_size:
            pointmap = F.interpolate(pointmap, (self.input_size, self.input_size), mode="nearest")
        points = rearrange(pointmap, "b xyz row column -> b row column xyz")
        valid = torch.isfinite(points).all(dim=-1, keepdim=True)
        tokens = self.point_proj(torch.where(valid, points, torch.zeros_like(points)))
        tokens = torch.where(valid, tokens, self.invalid_xyz_token.to(tokens.dtype))
        batch, height = tokens.shape[:2]
        windows = height // self.patch
        tokens = rearrange(
            tokens, "b (row i) (column j) channel -> (b row column) (i j) channel", i=self.patch, j=self.patch
        )
        return tokens, batch, windows

    def inner_forward(self, tokens: Tensor, batch: int, windows: int) -> Tensor:
        """Transformer over each window; returns its class token plus the window's position."""
        tokens = torch.cat([self.cls_token.expand(tokens.shape[0], -1, -1), tokens], dim=1)
        tokens = tokens + self.pos_embed_window
        for block in self.blocks:
            tokens = block(tokens)
        summary = rearrange(tokens[:, 0], "(b window) channel -> b window channel", b=batch, window=windows**2)
        return summary + rearrange(self.pos_embed, "one channel row column -> one (row column) channel")

    def forward(self, pointmap: Tensor) -> Tensor:
        return self.inner_forward(*self.embed_pointmap_windows(pointmap))
