"""Vision transformer with register tokens (the DINOv2 architecture), the image half of the condition embedders.

docs/facts.md, section S3; state-dict names: docs/facts.md, section S10.2, under `backbone.`.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from fastsam3d.modules.attention import attend

IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)


class VisionAttention(nn.Module):
    """Plain multi-head self-attention with the timm names `qkv` and `proj`. `[B, T, C] -> [B, T, C]`."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = rearrange(self.qkv(x), "b token (qkv head d) -> qkv b token head d", qkv=3, head=self.heads)
        return self.proj(attend(q, k, v))


class VisionMlp(nn.Module):
    """Two-layer perceptron with exact GELU and the timm names `fc1` and `fc2`. `[..., C] -> [..., C]`."""

    def __init__(self, channels: int, ratio: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, int(channels * ratio))
        self.fc2 = nn.Linear(int(channels * ratio), channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class LayerScale(nn.Module):
    """Learned gain per channel of a residual branch. `[..., C] -> [..., C]`."""

    def __init__(self, channels: int, initial: float = 1.0) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((channels,), initial))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class VisionBlock(nn.Module):
    """Pre-normalised transformer block. `[B, T, C] -> [B, T, C]`.

    `layer_scale` false gives the timm block of the point-map embedder.
    """

    def __init__(self, channels: int, heads: int, mlp_ratio: float = 4.0, layer_scale: bool = True) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=1e-6)
        self.attn = VisionAttention(channels, heads)
        self.ls1 = LayerScale(channels) if layer_scale else nn.Identity()
        self.norm2 = nn.LayerNorm(channels, eps=1e-6)
        self.mlp = VisionMlp(channels, mlp_ratio)
        self.ls2 = LayerScale(channels) if layer_scale else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class PatchEmbed(nn.Module):
    """Non-overlapping patches to tokens. `[B, 3, S, S] -> [B, (S / patch)^2, C]`."""

    def __init__(self, patch: int, channels: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, channels, patch, stride=patch)

    def forward(self, x: Tensor) -> Tensor:
        return rearrange(self.proj(x), "b channel row column -> b (row column) channel")


class VisionTransformer(nn.Module):
    """Backbone: class token, registers, patch tokens, `depth` blocks.

    `[B, 3, S, S] -> [B, 1 + registers + (S / patch)^2, C]`, tokens before the final norm.
    """

    def __init__(self, image_size: int, patch: int, channels: int, depth: int, heads: int, registers: int = 4) -> None:
        super().__init__()
        patches = (image_size // patch) ** 2
        self.cls_token = nn.Parameter(torch.randn(1, 1, channels) * 0.02)
        self.pos_embed = nn.Parameter(torch.randn(1, 1 + patches, channels) * 0.02)
        self.register_tokens = nn.Parameter(torch.randn(1, registers, channels) * 0.02)
        # Unused at inference; present because the official checkpoints carry it.
        self.mask_token = nn.Parameter(torch.zeros(1, channels))
        self.patch_embed = PatchEmbed(patch, channels)
        self.blocks = nn.ModuleList([VisionBlock(channels, heads) for _ in range(depth)])
        self.norm = nn.LayerNorm(channels, eps=1e-6)

    def forward(self, image: Tensor) -> Tensor:
        tokens = self.patch_embed(image)
        batch = tokens.shape[0]
        tokens = torch.cat([self.cls_token.expand(batch, -1, -1), tokens], dim=1) + self.pos_embed
        registers = self.register_tokens.expand(batch, -1, -1)
        tokens = torch.cat([tokens[:, :1], registers, tokens[:, 1:]], dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        return tokens


class Dino(nn.Module):
    """Image or mask to tokens.

    Args:
        image_size: side that the input is resized to; 518 in the official model.
        patch, channels, depth, heads, registers: sizes; 14, 1024, 24, 16, 4 in the official model.
        prenorm_features: false (first stage): class and patch tokens after the final norm, registers dropped;
            true (second stage): all tokens before it, normalised without learned weights.

    `forward`: `[B, 1 or 3, H, W]` in 0..1 -> `[B, 1 + patches (+ registers), channels]`.
    """

    def __init__(
        self,
        image_size: int = 518,
        patch: int = 14,
        channels: int = 1024,
        depth: int = 24,
        heads: int = 16,
        registers: int = 4,
        prenorm_features: bool = False,
    ) -> None:
        super().__init__()
        self.image_size = image_size
        self.embed_channels = channels
        self.registers = registers
        self.prenorm_features = prenorm_features
        self.backbone = VisionTransformer(image_size, patch, channels, depth, heads, registers)
        self.register_buffer("mean", torch.tensor(IMAGE_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGE_STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        image = image.expand(-1, 3, -1, -1)
        if image.shape[-1] != self.image_size or image.shape[-2] != self.image_size:
            image = F.interpolate(image, (self.image_size, self.image_size), mode="bilinear")
        tokens = self.backbone((image - self.mean) / self.std)
        if self.prenorm_features:
            return F.layer_norm(tokens.float(), tokens.shape[-1:], eps=1e-5).to(tokens.dtype)
        tokens = self.backbone.norm(tokens)
        return torch.cat([tokens[:, :1], tokens[:, 1 + self.registers :]], dim=1)
