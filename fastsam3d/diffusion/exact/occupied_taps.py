"""Exact saving: sparse convolutions multiply occupied neighbours only.

On a surface fewer than half of the 27 neighbours of a voxel are occupied. The plain convolution gathers all 27, zeros
among them, for the sake of one large product; with the pairs of occupied voxels sorted by tap once for a voxel set, one
product a tap does less than half of the work. On a CUDA device the technique rests: there the one large product wins.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastsam3d.diffusion.exact.saving import ExactSaving, Nesting, PipelineTarget, register_saving
from fastsam3d.diffusion.sites import Forward

CENTRE = 13
TAPS = 27


def occupied_pairs(table: Tensor) -> list[tuple[Tensor, Tensor]]:
    """For each tap the rows that have a neighbour there, and the rows of those neighbours.

    Args:
        table: `[N, 27]`, row of each neighbour, `N` where there is none.
    """
    filled = (table < len(table)).t().nonzero()
    sizes = torch.bincount(filled[:, 0], minlength=TAPS).tolist()
    rows = filled[:, 1].split(sizes)
    return [(own, table[own, tap]) for tap, own in enumerate(rows)]


def paired_convolution(feats: Tensor, taps: Tensor, bias: Tensor, pairs: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Convolution over occupied pairs.

    Args:
        feats: `[N, C_in]`.
        taps: `[27, C_in, C_out]`.
        bias: `[C_out]`.
        pairs: see `occupied_pairs`.

    Returns:
        `[N, C_out]`, in the type of `feats`; added up in fp32.
    """
    # Half precision would round the sum at every tap, which one large product does not.
    total = (feats @ taps[CENTRE]).float() + bias.float()
    for tap, (own, neighbour) in enumerate(pairs):
        if tap != CENTRE and len(own):
            total.index_add_(0, own, (feats.index_select(0, neighbour) @ taps[tap]).float())
    return total.to(feats.dtype)


class OccupiedTaps:
    """A sparse convolution's `apply_to` over occupied pairs; the pairs are kept with the voxels' other tables."""

    def __init__(self, convolution: Any) -> None:
        self.convolution = convolution

    def wrap(self, original: Forward) -> Forward:
        """The convolution's `apply_to(feats, index)`."""

        def apply_to(feats: Tensor, index: Any) -> Tensor:
            # A GPU multiplies the zeros faster than it starts and adds up one product a tap.
            if torch.is_grad_enabled() or len(feats) == 0 or feats.device.type == "cuda":
                return original(feats, index)
            pairs = index.table("pairs", lambda: occupied_pairs(index.neighbours()))
            kind = feats.device.type
            dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else feats.dtype
            convolution = self.convolution
            return paired_convolution(feats.to(dtype), convolution.taps().to(dtype), convolution.bias, pairs)

        return apply_to


def _attach(target: PipelineTarget) -> None:
    for convolution in target.host.convolutions():
        target.patches.replace(convolution, "apply_to", OccupiedTaps(convolution).wrap)


register_saving(
    ExactSaving(
        "occupied_taps",
        "Sparse convolutions multiply occupied neighbours only. Faster; memory: two numbers a pair of neighbours.",
        Nesting.OPERATORS,
        sites=("convolutions",),
        attach=_attach,
    )
)
