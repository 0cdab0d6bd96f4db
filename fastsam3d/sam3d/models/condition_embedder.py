"""Fuses image, mask and point-map tokens to the condition of a generator (docs/facts.md, section S3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fastsam3d.modules.layers import SwiGLU

POSITION_GROUPS = {"cropped": 0, "full": 1}
"""Row of the learned view embedding that an input gets. The official table has a third, spare row."""

IMAGE_INPUTS = (("image", "cropped"), ("rgb_image", "full"))
MASK_INPUTS = (("mask", "cropped"), ("rgb_image_mask", "full"))
POINTMAP_INPUTS = (("pointmap", "cropped"), ("rgb_pointmap", "full"))


class ConditionEmbedder(nn.Module):
    """Condition tokens of the crop and of the full frame.

    Args:
        embedders: list of (module, inputs), inputs being pairs (keyword, position group). One module serves all
            its inputs. A module has the attribute `embed_channels`.
        channels: width of the condition tokens.
        hidden_multiple: granularity of the projection's hidden width, 256 in the official model.

    `forward(**inputs)`: tensors `[B, c, H, W]` by keyword; keywords that no embedder names are ignored.
    Returns tokens `[B, L, channels]`, concatenated in the embedders' order. Raises ValueError where one is missing.
    """

    def __init__(
        self,
        embedders: Sequence[tuple[nn.Module, Sequence[tuple[str, str]]]],
        channels: int = 1024,
        hidden_multiple: int = 256,
    ) -> None:
        super().__init__()
        self.inputs = [tuple(inputs) for _, inputs in embedders]
        self.module_list = nn.ModuleList([module for module, _ in embedders])
        self.projection_nets = nn.ModuleList(
            [
                nn.Sequential(
                    nn.LayerNorm(module.embed_channels), SwiGLU(module.embed_channels, channels, hidden_multiple)
                )
                for module, _ in embedders
            ]
        )
        self.idx_emb = nn.Parameter(torch.randn(3, channels) * 0.02)

    def embed_input(self, index: int, group: str, x: Tensor) -> Tensor:
        """Tokens of one input through embedder `index`. `[B, c, H, W] -> [B, T, channels]`."""
        tokens = self.projection_nets[index](self.module_list[index](x))
        return tokens + self.idx_emb[POSITION_GROUPS[group]]

    def forward(self, **inputs: Tensor) -> Tensor:
        missing = [name for group in self.inputs for name, _ in group if name not in inputs]
        if missing:
            raise ValueError(f"condition inputs are missing: {', '.join(missing)}")
        return torch.cat(
            [
                self.embed_input(index, group, inputs[name])
                for index, names in enumerate(self.inputs)
                for name, group in names
            ],
            dim=1,
        )
