"""Counts the operations of a run from what it calls: another way than the formulas of `fastsam3d.diffusion.operations`.

PyTorch's `FlopCounterMode` sees the shape of every matrix product, attention and dense convolution that runs. Two
things it cannot see are counted by hooks, from the voxels of the actual call: sparse convolutions (which multiply
zeros at empty neighbours) and attention windows (which are padded).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from fastsam3d.acceleration.patching import Patches
from fastsam3d.modules.sparse_convolution import SubMConvolution
from fastsam3d.modules.windowed_attention import WindowedSelfAttention


def _attention(q: Any, k: Any, v: Any, *_: Any, out_shape: Any = None, **__: Any) -> float:
    """Shapes `[B, H, T, D]`: queries times keys, and weights times values."""
    return 2.0 * q[0] * q[1] * q[2] * k[2] * (q[3] + v[3])


MAPPING = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention}
"""What the counter of some releases of PyTorch does not know."""


class Watched:
    """Operations by stage, as `report.network_flops` names them."""

    def __init__(self) -> None:
        self.stages: dict[str, float] = {}
        self._mode = FlopCounterMode(display=False, custom_mapping=MAPPING)
        self._analytic = 0.0

    @property
    def total(self) -> float:
        return self._mode.get_total_flops() + self._analytic

    def instead(self, flops: Callable[..., float], original: Callable[..., Any]) -> Callable[..., Any]:
        """The function; whatever it multiplies, `flops(*arguments)` is counted."""

        def call(*args: Any) -> Any:
            before = self.total
            result = original(*args)
            self._analytic += before - self.total + flops(*args)
            return result

        return call

    def into(self, stage: str, original: Callable[..., Any]) -> Callable[..., Any]:
        """The function, what runs in which belongs to a stage."""

        def call(*args: Any, **kwargs: Any) -> Any:
            before = self.total
            result = original(*args, **kwargs)
            self.stages[stage] = self.stages.get(stage, 0.0) + self.total - before
            return result

        return call


def _pairs(convolution: SubMConvolution, coords: torch.Tensor) -> float:
    """Two operations a channel pair for each pair of neighbours."""
    return 2.0 * _neighbours(coords.int().numpy().tobytes()) * convolution.in_channels * convolution.out_channels


@lru_cache(maxsize=8)
def _neighbours(cells: bytes) -> int:
    """Pairs of voxels that touch, and each with itself, found in a set."""
    rows = np.frombuffer(cells, np.int32).reshape(-1, 4).astype(np.int64) + 1
    places = np.array([1 << 48, 1 << 32, 1 << 16, 1])
    known = rows @ places
    steps = [(0, *step) for step in itertools.product((-1, 0, 1), repeat=3)]
    return sum(int(np.isin(known + np.array(step) @ places, known).sum()) for step in steps)


def _children(coords: torch.Tensor) -> torch.Tensor:
    steps = torch.tensor([[0, x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)])
    return (coords.long()[:, None] * torch.tensor([1, 2, 2, 2]) + steps).flatten(0, 1)


def _windows(attention: WindowedSelfAttention, x: Any) -> float:
    """Projections of N voxels, and two products of every voxel with all of its window."""
    coords, width = x.index.coords.long().clone(), x.feats.shape[1]
    coords[:, 1:] = (coords[:, 1:] + attention.shift) // attention.window
    sizes = coords.unique(dim=0, return_counts=True)[1].double()
    return 8.0 * len(coords) * width**2 + 4.0 * width * float((sizes**2).sum())


@contextmanager
def watched(pipeline: Any) -> Iterator[Watched]:
    """Watches everything that runs in the networks of a native pipeline, accelerated or not."""
    seen, patches = Watched(), Patches()
    networks = {
        "sparse_structure": pipeline.models["ss_generator"].reverse_fn.backbone,
        "structured_latent": pipeline.models["slat_generator"].reverse_fn.backbone,
        "ss_decode": pipeline.models["ss_decoder"],
        "mesh_decode": pipeline.models["slat_decoder_mesh"],
        "ss_condition": pipeline.condition_embedders["ss_condition_embedder"],
        "slat_condition": pipeline.condition_embedders["slat_condition_embedder"],
    }

    def counted(flops: Callable[..., float]) -> Callable[[Any], Any]:
        return lambda original: seen.instead(flops, original)

    try:
        for stage, network in networks.items():
            for module in network.modules():
                if isinstance(module, SubMConvolution) and module.kernel > 1:
                    own = module
                    patches.replace(own, "apply_to", counted(lambda _, i, own=own: _pairs(own, i.coords)))
                    patches.replace(own, "apply_to_copies", counted(lambda _, p, i, own=own: _pairs(own, i.coords)))
                    children = counted(lambda _, i, own=own: _pairs(own, _children(i.coords)))
                    patches.replace(own, "apply_to_children", children)
                if isinstance(module, WindowedSelfAttention):
                    patches.replace(module, "forward", counted(lambda x, own=module: _windows(own, x)))
            patches.replace(network, "forward", lambda original, stage=stage: seen.into(stage, original))
        with seen._mode:
            yield seen
    finally:
        patches.restore()
