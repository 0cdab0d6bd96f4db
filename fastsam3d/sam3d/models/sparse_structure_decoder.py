"""The sparse-structure decoder: latent grid to occupancy logits (docs/facts.md, section S5)."""

from __future__ import annotations

from collections.abc import Sequence

from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from fastsam3d.modules.layers import LayerNorm32


class ChannelLayerNorm(LayerNorm32):
    """Layer normalisation over the channels of a grid `[B, C, X, Y, Z]`."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, affine=True, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class ResBlock3d(nn.Module):
    """Pre-normalised residual block of two 3x3x3 convolutions of one width. `[B, C, X, Y, Z]` to the same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = ChannelLayerNorm(channels)
        self.norm2 = ChannelLayerNorm(channels)
        self.conv1 = nn.Conv3d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv3d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        return x + self.conv2(F.silu(self.norm2(h)))


def pixel_shuffle_3d(x: Tensor, factor: int = 2) -> Tensor:
    """Channels to space: channel `c * f^3 + (i f + j) f + k` goes to offset `(i, j, k)`.

    `[B, C f^3, X, Y, Z] -> [B, C, f X, f Y, f Z]`.
    """
    return rearrange(x, "b (c i j k) x y z -> b c (x i) (y j) (z k)", i=factor, j=factor, k=factor)


class UpsampleBlock3d(nn.Module):
    """Doubles the grid: 3x3x3 convolution to eight times the channels, then channels to space.

    `[B, C_in, X, Y, Z] -> [B, C_out, 2 X, 2 Y, 2 Z]`.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(in_channels, out_channels * 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return pixel_shuffle_3d(self.conv(x))


class SparseStructureDecoder(nn.Module):
    """Decodes shape tokens to occupancy logits.

    Args:
        latent_channels: channels of the latent grid, 8.
        channels: width at each resolution, coarse to fine; (512, 128, 32) in the official model.
        num_res_blocks: residual blocks a resolution, 2.
        num_middle_blocks: residual blocks before them, 2.
        patch: side of the cube of latent cells that one shape token carries; 1 in the official model.

    `forward`: shape tokens `[B, R^3, latent_channels * patch^3]` -> logits `[B, 1, S, S, S]` with
    `S = R * patch * 2^(len(channels) - 1)`; occupied where the logit is above 0.
    """

    def __init__(
        self,
        latent_channels: int = 8,
        channels: Sequence[int] = (512, 128, 32),
        num_res_blocks: int = 2,
        num_middle_blocks: int = 2,
        patch: int = 1,
    ) -> None:
        super().__init__()
        self.patch = patch
        self.input_layer = nn.Conv3d(latent_channels, channels[0], 3, padding=1)
        self.middle_block = nn.Sequential(*[ResBlock3d(channels[0]) for _ in range(num_middle_blocks)])
        blocks: list[nn.Module] = []
        for level, width in enumerate(channels):
            blocks += [ResBlock3d(width) for _ in range(num_res_blocks)]
            if level + 1 < len(channels):
                blocks.append(UpsampleBlock3d(width, channels[level + 1]))
        self.blocks = nn.ModuleList(blocks)
        self.out_layer = nn.Sequential(
            ChannelLayerNorm(channels[-1]), nn.SiLU(), nn.Conv3d(channels[-1], 1, 3, padding=1)
        )

    def tokens_to_grid(self, tokens: Tensor) -> Tensor:
        """Shape tokens `[B, R^3, C patch^3]` to the latent grid `[B, C, R patch, R patch, R patch]`."""
        side = round(tokens.shape[1] ** (1 / 3))
        grid = rearrange(tokens, "b (x y z) channel -> b channel x y z", x=side, y=side, z=side)
        return grid if self.patch == 1 else pixel_shuffle_3d(grid, self.patch)

    def forward(self, tokens: Tensor) -> Tensor:
        h = self.middle_block(self.input_layer(self.tokens_to_grid(tokens)))
        for block in self.blocks:
            h = block(h)
        return self.out_layer(h)


def grid_to_tokens(grid: Tensor, patch: int = 1) -> Tensor:
    """Inverse of `SparseStructureDecoder.tokens_to_grid`: `[B, C, S, S, S] -> [B, (S / patch)^3, C patch^3]`."""
    return rearrange(grid, "b c (x i) (y j) (z k) -> b (x y z) (c i j k)", i=patch, j=patch, k=patch)
