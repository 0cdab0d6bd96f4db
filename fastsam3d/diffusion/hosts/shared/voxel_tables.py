"""Voxel tables of the latent stage of SAM 3D Objects and TRELLIS, which rebuild them in every network evaluation.

The voxels of a run do not change: which cell a voxel pools into, and which voxels are neighbours of which, is found out
once (SAM 3D Objects architecture, section 7).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fastsam3d.acceleration.patching import Patches
from fastsam3d.diffusion.sites import EvaluationState, Forward


class VoxelTables:
    """Maker of this library's own tables, and attachment of what keeps the pipeline's."""

    def make_index(self, coords: Tensor) -> Any:
        """Tables of a voxel set; replaced on the instance by a cache."""
        from fastsam3d.modules.sparse_tensor import SparseIndex

        return SparseIndex(coords)

    @staticmethod
    def attach(patches: Patches, network: Any, state: EvaluationState) -> list[Any]:
        """Attaches to the blocks of `network` that pool and convolve. Returns what is kept for a run."""
        keepers: list[Any] = []
        level, books = 0, Rulebooks(state)
        for block in (*network.input_blocks, *network.out_blocks):
            if getattr(block, "downsample", False):
                level += 1
                pooled = PooledOnce(state, block.updown)
                patches.replace(block.updown, "forward", pooled.wrap)
                keepers.append(pooled)
            elif getattr(block, "upsample", False):
                level -= 1
            # A block pools first: its convolutions see the coarser, or finer, voxels.
            for convolution in (block.conv1, block.conv2):
                books.attach(patches, convolution, level)
        return [*keepers, books]


class PooledOnce:
    """One pooling layer whose cells are found in the first evaluation of a run.

    The layer leaves the cell of each voxel in the sparse tensor's own cache, where its counterpart, the layer that
    copies cells to voxels, looks for it; there it is read.
    """

    def __init__(self, state: EvaluationState, layer: Any) -> None:
        self.state = state
        factor = layer.factor
        self._name = f"upsample_{factor if isinstance(factor, tuple) else (factor,) * 3}_idx"
        self._kept: tuple[Any, Tensor] | None = None

    def start(self) -> None:
        """Begins a run with nothing kept."""
        self._kept = None

    def finish(self) -> None:
        """Releases what was kept."""
        self._kept = None

    def wrap(self, original: Forward) -> Forward:
        """The layer's `forward`, which pools into known cells from the second evaluation of a run on."""

        def forward(x: Any) -> Any:
            # An evaluation of a subset has voxels of its own.
            if not self.state.running or self.state.subset is not None:
                return original(x)
            if self._kept is None or len(self._kept[1]) != len(x.feats):
                first = original(x)
                cells = first.get_spatial_cache(self._name)
                self._kept = None if cells is None else (first, cells)
                return first
            first, cells = self._kept
            # The mean with the initial zero in it, as the layer takes it.
            total = x.feats.new_zeros(len(first.feats), x.feats.shape[1])
            index = cells[:, None].expand_as(x.feats)
            return first.replace(torch.scatter_reduce(total, 0, index, x.feats, reduce="mean"))

        return forward


class Rulebooks:
    """Neighbour tables ("rulebooks") of sparse convolutions, by level of the voxel pyramid, kept for a run.

    spconv builds a table for every layer without an `indice_key` and shares it among layers of one key, through a dict
    that travels with the tensor and is lost at every pooling. Here all layers of a level get one key, and the dict
    is carried from layer to layer and from evaluation to evaluation.
    """

    def __init__(self, state: EvaluationState) -> None:
        self.state = state
        self._kept: dict[str, Any] = {}

    def start(self) -> None:
        """Begins a run with nothing kept."""
        self._kept.clear()

    def finish(self) -> None:
        """Releases what was kept."""
        self._kept.clear()

    def attach(self, patches: Patches, convolution: Any, level: int) -> None:
        """Attaches to one convolution, if it is spconv's, keeps the voxels as they are and has no key of its own."""
        inner = getattr(convolution, "conv", None)
        if not getattr(inner, "subm", False) or getattr(inner, "indice_key", "") is not None:
            return
        key = f"fastsam3d_level_{level}"
        patches.set(inner, "indice_key", key)
        patches.replace(convolution, "forward", self._sharing(key))

    def _sharing(self, key: str) -> Callable[[Forward], Forward]:
        def make(original: Forward) -> Forward:
            def forward(x: Any) -> Any:
                if not self.state.running or self.state.subset is not None:
                    return original(x)
                if key in self._kept:
                    x.data.indice_dict[key] = self._kept[key]
                result = original(x)
                if key not in self._kept and key in result.data.indice_dict:
                    self._kept[key] = result.data.indice_dict[key]
                return result

            return forward

        return make
