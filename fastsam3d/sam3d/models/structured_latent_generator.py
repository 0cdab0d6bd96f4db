"""Second-stage generator: a transformer on sparse voxels (docs/facts.md, section S7)."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastsam3d.modules.attention import ModulatedTransformerCrossBlock
from fastsam3d.modules.layers import LayerNorm32, TimestepEmbedder, sinusoidal_position_embedding
from fastsam3d.modules.sparse_convolution import SparseConvolution, SubMConvolution
from fastsam3d.modules.sparse_tensor import SparseIndex, SparseTensor


class SparseResBlock(nn.Module):
    """Residual block on voxels with time modulation, optionally across one resolution level.

    Args:
        channels: width of the input.
        out_channels: width of the output.
        embedding_channels: width of the time embedding.
        direction: -1 to go to 2 x 2 x 2 cells first, +1 to come back from cells first, 0 to stay.
    """

    def __init__(self, channels: int, out_channels: int, embedding_channels: int, direction: int = 0) -> None:
        super().__init__()
        self.direction = direction
        self.norm1 = LayerNorm32(channels, affine=True)
        self.norm2 = LayerNorm32(out_channels, affine=False)
        self.conv1 = SparseConvolution(channels, out_channels)
        self.conv2 = SparseConvolution(out_channels, out_channels)
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(embedding_channels, 2 * out_channels))
        self.skip_connection = nn.Linear(channels, out_channels) if channels != out_channels else nn.Identity()

    def forward(self, x: SparseTensor, t_emb: Tensor, target: SparseIndex | None = None) -> SparseTensor:
        """`target` is the finer voxel set to return to when `direction` is +1. `t_emb [B, C]`."""
        if self.direction < 0:
            pooling = x.index.pooling()
            x = SparseTensor(pooling.downsample(x.feats), pooling.index)
        h = F.silu(self.norm1(x.feats))
        skip = self.skip_connection(x.feats)
        if self.direction > 0:
            # What acts on single voxels gives the same for all voxels of a cell, so it precedes copying.
            assert target is not None
            pooling, index = target.pooling(), target
            h = self.conv1.conv.apply_to_copies(h, pooling, index)
            skip = pooling.upsample(skip)
        else:
            index = x.index
            h = self.conv1.conv.apply_to(h, index)
        # The scale comes before the shift here, unlike in the blocks (docs/facts.md, section S14, item 1).
        modulation = self.emb_layers(t_emb)
        if len(modulation) > 1:  # one object's row is broadcast; several are copied to their voxels
            modulation = modulation.index_select(0, index.coords[:, 0].long())
        scale, shift = modulation.chunk(2, dim=-1)
        h = F.silu(self.norm2(h) * (1 + scale) + shift)
        return SparseTensor(self.conv2.conv.apply_to(h, index) + skip, index)


class StructuredLatentGenerator(nn.Module):
    """Velocity of latents on voxels.

    Args:
        resolution: side of the voxel grid.
        channels: latent channels per voxel.
        model_channels: width of the transformer.
        num_blocks: transformer blocks.
        num_heads: attention heads.
        mlp_ratio: hidden width of the feed-forward over `model_channels`.
        cond_channels: width of condition tokens.
        io_channels: width of the convolutional levels before (and after) the transformer; each level halves
            the grid, so one entry means patches of 2 x 2 x 2.
        num_io_res_blocks: residual blocks per level.
        dtype: type of the torso; input layer, output layer and time embedding stay in fp32.
    """

    def __init__(
        self,
        resolution: int = 64,
        channels: int = 8,
        model_channels: int = 1024,
        num_blocks: int = 24,
        num_heads: int = 16,
        mlp_ratio: float = 4.0,
        cond_channels: int = 1024,
        io_channels: Sequence[int] = (128,),
        num_io_res_blocks: int = 2,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.resolution = resolution
        self.channels = channels
        self.model_channels = model_channels
        self.dtype = dtype
        widths = [*io_channels, model_channels]
        self.t_embedder = TimestepEmbedder(model_channels)
        self.input_layer = nn.Linear(channels, widths[0])
        self.input_blocks = nn.ModuleList()
        self.out_blocks = nn.ModuleList()
        for width, following in itertools.pairwise(widths):
            same = [SparseResBlock(width, width, model_channels) for _ in range(num_io_res_blocks - 1)]
            self.input_blocks.extend([*same, SparseResBlock(width, following, model_channels, -1)])
        for width, previous in zip(reversed(widths[:-1]), reversed(widths[1:]), strict=True):
            self.out_blocks.append(SparseResBlock(2 * previous, width, model_channels, 1))
            self.out_blocks.extend(
                SparseResBlock(2 * width, width, model_channels) for _ in range(num_io_res_blocks - 1)
            )
        self.blocks = nn.ModuleList(
            ModulatedTransformerCrossBlock(model_channels, cond_channels, num_heads, mlp_ratio)
            for _ in range(num_blocks)
        )
        self.out_norm = LayerNorm32(widths[0], affine=False, eps=1e-5)
        self.out_layer = nn.Linear(widths[0], channels)
        self._initialise()
        self.set_dtype(dtype)

    def _initialise(self) -> None:
        # Modulations and the output begin at zero, so that blocks begin as identities and the
        # velocity at zero.
        ends = [self.out_layer]
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear) and ("adaLN_modulation" in name or "emb_layers" in name):
                ends.append(module)
        for layer in ends:
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        for block in [*self.input_blocks, *self.out_blocks]:
            nn.init.zeros_(cast(SparseResBlock, block).conv2.conv.weight)

    def set_dtype(self, dtype: torch.dtype) -> None:
        """Converts the torso; normalisation parameters stay in fp32, as in the official checkpoint."""
        self.dtype = dtype
        for module in [*self.input_blocks, *self.out_blocks, *self.blocks]:
            for part in module.modules():
                if isinstance(part, nn.Linear | SubMConvolution):
                    part.to(dtype)

    def make_index(self, coords: Tensor) -> SparseIndex:
        """Index tables of a voxel set, new at each evaluation; replace it on the instance to share tables."""
        return SparseIndex(coords)

    def forward(self, x: Tensor, t: Tensor, cond: Tensor, coords: Tensor, cfg: bool = False) -> Tensor:
        """Velocity at voxels.

        Args:
            x: latents `[1, N, C]` (objects of a batch one after the other).
            t: time multiplied by 1000, `[B]` or without dimensions.
            cond: condition tokens `[B, L, C_cond]`.
            coords: voxels `[N, 4]` (batch, x, y, z), rows grouped by object.
            cfg: the unconditional pass: condition tokens count as zeros.

        Returns:
            `[1, N, C]`, fp32.
        """
        if cfg:
            cond = cond * 0
        index = self.make_index(coords.to(x.device))
        h = SparseTensor(self.input_layer(x[0]).to(self.dtype), index)
        t_emb = self.t_embedder(t.reshape(-1)).to(self.dtype)
        if len(t_emb) != len(cond):
            t_emb = t_emb.expand(len(cond), -1)
        skips: list[SparseTensor] = []
        finer: list[SparseIndex] = []
        for block in cast(Iterable[SparseResBlock], self.input_blocks):
            if block.direction < 0:
                finer.append(h.index)
            h = block(h, t_emb)
            skips.append(h)
        h = self._transform(h, t_emb, cond.to(self.dtype))
        for block in cast(Iterable[SparseResBlock], self.out_blocks):
            joined = h.replace(torch.cat([h.feats, skips.pop().feats], dim=-1))
            h = block(joined, t_emb, finer.pop() if block.direction > 0 else None)
        return self.out_layer(self.out_norm(h.feats.to(x.dtype))).unsqueeze(0)

    def _transform(self, h: SparseTensor, t_emb: Tensor, cond: Tensor) -> SparseTensor:
        position = sinusoidal_position_embedding(h.coords[:, 1:], self.model_channels)
        feats = h.feats + position.to(h.feats.dtype)
        outputs, first, row = [], 0, 0
        # Objects of a batch do not see each other; those with equally many tokens in a row share the launches.
        for size, group in itertools.groupby(h.index.batch_sizes()):
            count = len(list(group))
            items = slice(first, first + count)
            tokens = feats[row : row + count * size].view(count, size, -1)
            for block in self.blocks:
                tokens = block(tokens, t_emb[items], cond[items])
            outputs.append(tokens.flatten(0, 1))
            first, row = first + count, row + count * size
        return h.replace(outputs[0] if len(outputs) == 1 else torch.cat(outputs))
