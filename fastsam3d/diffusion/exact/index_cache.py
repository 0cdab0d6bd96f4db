"""Exact saving: builds the voxel tables of an object once, because its voxels do not change.

`IndexCache` keeps this library's own tables for the generator and the decoders. `PooledOnce` and `Rulebooks` keep those
that SAM 3D Objects and TRELLIS rebuild in every network evaluation (docs/facts.md, section S7).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fastsam3d.acceleration.patching import Patches
from fastsam3d.diffusion.exact.saving import ExactSaving, Nesting, PipelineTarget, StageTarget, register_saving
from fastsam3d.diffusion.sites import EvaluationState, Forward
from fastsam3d.modules.tensor_versions import version


class IndexCache:
    """One index object for the voxels of an object, shared by everything that builds tables of them."""

    def __init__(self) -> None:
        self._kept: tuple[Tensor, int, Any] | None = None  # voxels, their version, index

    def clear(self) -> None:
        """Releases the kept tables: the object is done."""
        self._kept = None

    def wrap(self, original: Forward) -> Forward:
        """Wraps the maker of index objects: it returns the same object for the same voxels."""

        def make_index(coords: Tensor) -> Any:
            if self._kept is None or not _same(self._kept[0], self._kept[1], coords):
                self._kept = (coords, version(coords), original(coords))
            return self._kept[2]

        return make_index


def _same(known: Tensor, known_version: int, coords: Tensor) -> bool:
    if version(known) != known_version:
        return False  # somebody has written to it
    # Moving coordinates to the device makes a new tensor at each call; comparing them is cheap beside building tables.
    equal_place = known.shape == coords.shape and known.device == coords.device
    return known is coords or (equal_place and torch.equal(known, coords))


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
        """Releases the kept tables."""
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
        """Releases the kept tables."""
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


def _attach(target: PipelineTarget) -> None:
    tables = IndexCache()
    for maker in [*target.host.index_makers(), *target.host.voxel_decoders()]:
        target.patches.replace(maker, "make_index", tables.wrap)
    target.at_end.append(tables.clear)


def _attach_stage(target: StageTarget) -> None:
    blocks = target.host.pyramid_blocks(target.stage)
    if blocks:
        for keeper in _attach_tables(target.patches, blocks, target.runner.state):
            target.keep(keeper)


def _attach_tables(patches: Patches, blocks: Sequence[Any], state: EvaluationState) -> list[Any]:
    """Attaches to blocks that pool and convolve, in the order in which they run. Returns values kept for a run."""
    keepers: list[Any] = []
    level, books = 0, Rulebooks(state)
    for block in blocks:
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


register_saving(
    ExactSaving(
        "index_cache",
        "Voxel tables kept for an object, through generator and decoders. Faster; memory: 27 numbers a voxel.",
        Nesting.TABLES,
        sites=("index_makers", "voxel_decoders", "pyramid_blocks"),
        attach=_attach,
        attach_stage=_attach_stage,
    )
)
