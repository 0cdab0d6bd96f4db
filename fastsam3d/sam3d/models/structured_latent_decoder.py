"""Decoders of structured latents: surface and Gaussians (docs/facts.md, section S8)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import cast

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from fastsam3d.meshes.gaussians import Gaussian, offset_perturbation
from fastsam3d.modules.flexicubes import CHANNELS, Surface, extract_surface
from fastsam3d.modules.layers import LayerNorm32
from fastsam3d.modules.sparse_convolution import GroupNorm32, SparseConvolution
from fastsam3d.modules.sparse_tensor import SparseIndex, SparseTensor
from fastsam3d.modules.windowed_attention import SparseTransformerTrunk


def group_count(channels: int) -> int:
    """Groups of a group normalisation: 32, or the largest smaller divisor of `channels`."""
    return max(n for n in range(1, min(32, channels) + 1) if channels % n == 0)


class SparseSubdivideBlock(nn.Module):
    """Residual block that replaces each voxel by its 8 children: `[N, C_in] -> [8 N, C_out]`."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        first = SparseConvolution(channels, out_channels)
        second = SparseConvolution(out_channels, out_channels)
        norm = GroupNorm32(group_count(out_channels), out_channels)
        self.act_layers = nn.Sequential(GroupNorm32(group_count(channels), channels), nn.SiLU())
        self.out_layers = nn.Sequential(first, norm, nn.SiLU(), second)
        self.skip_connection = SparseConvolution(channels, out_channels, kernel=1)
        nn.init.zeros_(second.conv.weight)

    def forward(self, x: SparseTensor) -> SparseTensor:
        fine = x.index.subdivision()
        norm = cast(GroupNorm32, self.act_layers[0])
        first, second_norm = (
            cast(SparseConvolution, self.out_layers[0]),
            cast(GroupNorm32, self.out_layers[1]),
        )
        second = cast(SparseConvolution, self.out_layers[3])
        h = F.silu(norm.apply_to(x.feats, x.index))
        h = first.conv.apply_to_children(h, x.index)
        h = F.silu(second_norm.apply_to(h, fine))
        h = second.conv.apply_to(h, fine)
        # The skip is the same for all children of a voxel, so it is computed before they are.
        skip = self.skip_connection.conv.pointwise(x.feats).repeat_interleave(8, dim=0)
        return SparseTensor(h + skip, fine)


class MeshDecoder(SparseTransformerTrunk):
    """Latents on voxels to FlexiCubes features on subdivided voxels, and those to a surface.

    Args:
        resolution: side of the voxel grid.
        latent_channels: channels per voxel.
        model_channels: width of the trunk.
        num_blocks: transformer blocks.
        num_heads: attention heads.
        window: side of attention windows.
        upsample_channels: width after each subdivision; each doubles the resolution.
        dtype: type of trunk and subdivision; input and output layers stay in fp32.
    """

    def __init__(
        self,
        resolution: int = 64,
        latent_channels: int = 8,
        model_channels: int = 768,
        num_blocks: int = 12,
        num_heads: int = 12,
        window: int = 8,
        upsample_channels: Sequence[int] = (192, 96),
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(latent_channels, model_channels, num_blocks, num_heads, window)
        self.resolution = resolution
        self.mesh_resolution = resolution * 2 ** len(upsample_channels)
        widths = [model_channels, *upsample_channels]
        self.upsample = nn.ModuleList(SparseSubdivideBlock(a, b) for a, b in itertools.pairwise(widths))
        self.out_layer = nn.Linear(widths[-1], CHANNELS)
        self.set_dtype(dtype)

    def set_dtype(self, dtype: torch.dtype) -> None:
        """Converts the torso; group normalisations stay in fp32, as in the official checkpoint."""
        super().set_dtype(dtype)
        if hasattr(self, "upsample"):
            self.upsample.to(dtype)
            for module in self.upsample.modules():
                if isinstance(module, GroupNorm32):
                    module.float()

    def forward(self, feats: Tensor, coords: Tensor) -> SparseTensor:
        """`feats [N, C]` fp32, `coords [N, 4]` -> `[8^k N, 101]` fp32 on the voxels after k subdivisions."""
        h = self.run_trunk(feats, coords)
        for block in self.upsample:
            h = block(h)
        return h.replace(self.out_layer(h.feats.to(feats.dtype)))

    def extract(self, output: SparseTensor, interior_coords: Tensor | None = None) -> Surface:
        """Surface of one object's decoded features.

        Args:
            output: what `forward` returned.
            interior_coords: voxels `[M, 4]` of the decoder's input grid known to be inside, or None.
        """
        interior = None
        if interior_coords is not None:
            index = SparseIndex(interior_coords.to(output.coords.device))
            for _ in self.upsample:
                index = index.subdivision()
            interior = index.coords[:, 1:]
        return extract_surface(output.coords[:, 1:], output.feats, self.mesh_resolution, interior)


class GaussianDecoder(SparseTransformerTrunk):
    """Latents on voxels to Gaussians.

    Args: as `MeshDecoder`; `gaussians` is their number per voxel.
    """

    VOXEL_SIZE = 1.5
    """Reach of a Gaussian's centre in voxel sides: it may leave its voxel a little."""
    ROTATION_RATE = 0.1

    def __init__(
        self,
        resolution: int = 64,
        latent_channels: int = 8,
        model_channels: int = 768,
        num_blocks: int = 12,
        num_heads: int = 12,
        window: int = 8,
        gaussians: int = 32,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(latent_channels, model_channels, num_blocks, num_heads, window, dtype)
        self.resolution, self.gaussians = resolution, gaussians
        self.register_buffer("offset_perturbation", offset_perturbation(gaussians, self.VOXEL_SIZE))
        self.out_norm = LayerNorm32(model_channels, affine=False, eps=1e-5)
        self.out_layer = nn.Linear(model_channels, 14 * gaussians)

    def forward(self, feats: Tensor, coords: Tensor) -> list[Gaussian]:
        """`feats [N, C]` fp32, `coords [N, 4]` -> one `Gaussian` per object of the batch."""
        h = self.run_trunk(feats, coords)
        raw = self.out_layer(self.out_norm(h.feats.to(feats.dtype)))
        sizes = h.index.batch_sizes()
        parts = zip(raw.split(sizes), h.coords.split(sizes), strict=True)
        return [self._to_gaussian(values, voxels[:, 1:]) for values, voxels in parts if len(values)]

    def _to_gaussian(self, raw: Tensor, voxels: Tensor) -> Gaussian:
        count = self.gaussians
        offset, color, scaling, rotation, opacity = raw.split([3 * count, 3 * count, 3 * count, 4 * count, count], 1)
        offset = rearrange(offset, "voxel (gaussian xyz) -> voxel gaussian xyz", xyz=3)
        moved = torch.tanh(offset + self.offset_perturbation)
        reach = 0.5 * self.VOXEL_SIZE / self.resolution
        center = ((voxels.float() + 0.5) / self.resolution).unsqueeze(1) + moved * reach
        return Gaussian(
            xyz=rearrange(center, "voxel gaussian xyz -> (voxel gaussian) xyz"),
            features_dc=rearrange(color, "voxel (gaussian rgb) -> (voxel gaussian) 1 rgb", rgb=3),
            scaling=rearrange(scaling, "voxel (gaussian xyz) -> (voxel gaussian) xyz", xyz=3),
            rotation=rearrange(rotation, "voxel (gaussian wxyz) -> (voxel gaussian) wxyz", wxyz=4) * self.ROTATION_RATE,
            opacity=rearrange(opacity, "voxel gaussian -> (voxel gaussian) 1"),
        )
