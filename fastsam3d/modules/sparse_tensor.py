"""Sparse voxel tensors and the index tables that their layers share.

`SparseIndex` owns everything that depends on the voxel set only (neighbours, pooling, subdivision, windows),
each built on first use. Upstream rebuilds these tables in every layer of every evaluation; here the layers
of one evaluation share them, and a caller may share one index among evaluations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

T = TypeVar("T")

DENSE_LOOKUP_CELLS = {"cpu": 130**3, "cuda": 1 << 25}
"""Up to this many cells, voxels are found through a dense table (one int32 a cell); beyond, by search. On a CUDA
device the table of the finest level (258^3 cells, 69 MB) costs less than the search."""
LOOKUP_ROWS = 1 << 18
"""Voxels whose neighbours are looked up at a time, which bounds the working memory (27 int64 a voxel)."""


@dataclass(frozen=True)
class Pooling:
    """Map from voxels to the 2 x 2 x 2 cells that hold them.

    Attributes:
        index: the cells, sorted lexicographically by (batch, x, y, z).
        inverse: cell of each voxel `[N]`, int64.
        counts: voxels in each cell `[T]`, int64.
    """

    index: SparseIndex
    inverse: Tensor
    counts: Tensor

    def downsample(self, feats: Tensor) -> Tensor:
        """Sum over the voxels of a cell divided by their number **plus one** `[N, C] -> [T, C]`.

        The official scatter-mean counts its initial zero (docs/facts.md, section S7).
        """
        total = feats.new_zeros(len(self.counts), feats.shape[1]).index_add(0, self.inverse, feats)
        return total / (self.counts + 1).unsqueeze(1).to(feats.dtype)

    def upsample(self, feats: Tensor) -> Tensor:
        """Copies each cell's features to its voxels `[T, C] -> [N, C]`."""
        return feats.index_select(0, self.inverse)


@dataclass(frozen=True)
class Windows:
    """Partition of voxels into attention windows, padded to buckets of similar size.

    Attributes:
        buckets: pairs (rows `[W, L]` of the voxels of W windows, padding repeats row 0; valid `[W, L]` or
            None where nothing is padded).
        restore: `[N]`, where each voxel's row is among the buckets' rows, padding counted, one bucket after the
            other.
    """

    buckets: tuple[tuple[Tensor, Tensor | None], ...]
    restore: Tensor


@dataclass(frozen=True)
class PackedWindows:
    """The same partition as one list of voxels, window after window, for kernels of variable length.

    Attributes:
        order: voxels sorted by window `[N]`.
        restore: the inverse permutation `[N]`.
        offsets: where each window begins in `order`, and N at the end `[W + 1]`, int32.
        longest: voxels of the largest window.
    """

    order: Tensor
    restore: Tensor
    offsets: Tensor
    longest: int


@dataclass
class SparseIndex:
    """A set of voxels with lazily built, cached index tables.

    Attributes:
        coords: unique voxels `[N, 4]`, integer columns (batch, x, y, z), not negative.
    """

    coords: Tensor
    _cache: dict[object, object] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.coords)

    def neighbours(self) -> Tensor:
        """Row of each voxel's 27 neighbours `[N, 27]`, int64; `N` where there is none.

        Column `9 (dx + 1) + 3 (dy + 1) + (dz + 1)`; column 13 is the voxel itself, column `26 - k` the
        mirror of k.
        """
        return self.table("neighbours", self._neighbours)

    def pooling(self) -> Pooling:
        """The next coarser level: 2 x 2 x 2 cells."""
        return self.table("pooling", self._pooling)

    def subdivision(self) -> SparseIndex:
        """The next finer level: 8 children of each voxel, in the order (0,0,0), (0,0,1) ... (1,1,1)."""
        return self.table("subdivision", self._subdivision)

    def windows(self, window: int, shift: int) -> Windows:
        """Windows of `window`^3 voxels, `floor((coord + shift) / window)`, without cyclic wrap."""
        return self.table(("windows", window, shift), lambda: self._windows(window, shift))

    def packed_windows(self, window: int, shift: int) -> PackedWindows:
        """The windows of `windows` without padding."""
        return self.table(("packed", window, shift), lambda: self._packed_windows(window, shift))

    def batch_sizes(self) -> list[int]:
        """Voxels of each object; rows are grouped by object."""
        return self.table("batch_sizes", lambda: torch.bincount(self.coords[:, 0].long()).tolist())

    def to(self, device: torch.device | str) -> SparseIndex:
        """The same voxels on another device, with empty caches."""
        return SparseIndex(self.coords.to(device))

    def table(self, key: Any, build: Callable[[], T]) -> T:
        """A table of these voxels, built on first use: the own ones above, or one of a caller's."""
        if key not in self._cache:
            self._cache[key] = build()
        return cast(T, self._cache[key])

    def _linear(self) -> tuple[Tensor, list[int]]:
        """Padded linear ids `[N]` and strides of (batch, x, y, z), with room for neighbours."""
        coords = self.coords.long()
        low = coords.amin(0) if len(coords) else coords.new_zeros(4)
        extent = (coords.amax(0) - low + 1).tolist() if len(coords) else [1, 1, 1, 1]
        padded = [extent[0]] + [e + 2 for e in extent[1:]]
        strides = [padded[1] * padded[2] * padded[3], padded[2] * padded[3], padded[3], 1]
        shifted = coords - low
        shifted[:, 1:] += 1
        return (shifted * shifted.new_tensor(strides)).sum(1), [padded[0] * strides[0], *strides]

    def _neighbours(self) -> Tensor:
        linear, (cells, _, sx, sy, sz) = self._linear()
        count = len(linear)
        steps = linear.new_tensor(
            [x * sx + y * sy + z * sz for x in (-1, 0, 1) for y in (-1, 0, 1) for z in (-1, 0, 1)]
        )
        limit = DENSE_LOOKUP_CELLS.get(linear.device.type, DENSE_LOOKUP_CELLS["cpu"])
        find = self._by_table(linear, cells) if cells <= limit else self._by_search(linear)
        neighbours = linear.new_empty(count, 27)
        for begin in range(0, count, LOOKUP_ROWS):
            neighbours[begin : begin + LOOKUP_ROWS] = find(linear[begin : begin + LOOKUP_ROWS].unsqueeze(1) + steps)
        return neighbours

    @staticmethod
    def _by_table(linear: Tensor, cells: int) -> Callable[[Tensor], Tensor]:
        count = len(linear)
        table = torch.full((cells,), count, dtype=torch.int32, device=linear.device)
        table[linear] = torch.arange(count, dtype=torch.int32, device=linear.device)
        return lambda wanted: table[wanted]

    @staticmethod
    def _by_search(linear: Tensor) -> Callable[[Tensor], Tensor]:
        ordered, order = linear.sort()

        def find(wanted: Tensor) -> Tensor:
            position = torch.searchsorted(ordered, wanted).clamp_(max=max(len(linear) - 1, 0))
            return torch.where(ordered[position] == wanted, order[position], len(linear))

        return find

    def _pooling(self) -> Pooling:
        cells = self.coords.long().clone()
        cells[:, 1:] //= 2
        size = cells.amax(0) + 1 if len(cells) else cells.new_ones(4)
        linear = ((cells[:, 0] * size[1] + cells[:, 1]) * size[2] + cells[:, 2]) * size[3] + cells[:, 3]
        unique, inverse, counts = torch.unique(linear, return_inverse=True, return_counts=True)
        columns = []
        for extent in (size[3], size[2], size[1]):
            columns.append(unique % extent)
            unique = unique // extent
        coarse = torch.stack([unique, *columns[::-1]], dim=1).to(self.coords.dtype)
        return Pooling(SparseIndex(coarse), inverse, counts)

    def _subdivision(self) -> SparseIndex:
        offsets = self.coords.new_tensor([[0, x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)])
        scale = self.coords.new_tensor([1, 2, 2, 2])
        return SparseIndex(((self.coords * scale).unsqueeze(1) + offsets).flatten(0, 1))

    def _sorted_by_window(self, window: int, shift: int) -> tuple[Tensor, Tensor]:
        """Voxels sorted by window `[N]` and voxels of each window `[W]`."""
        coords = self.coords.long()
        cells = torch.cat([coords[:, :1], (coords[:, 1:] + shift) // window], dim=1)
        size = cells.amax(0) + 1
        linear = ((cells[:, 0] * size[1] + cells[:, 1]) * size[2] + cells[:, 2]) * size[3] + cells[:, 3]
        _, inverse, counts = torch.unique(linear, return_inverse=True, return_counts=True)
        return torch.argsort(inverse, stable=True), counts

    def _packed_windows(self, window: int, shift: int) -> PackedWindows:
        order, counts = self._sorted_by_window(window, shift)
        offsets = torch.nn.functional.pad(counts.cumsum(0), (1, 0)).to(torch.int32)
        return PackedWindows(order, torch.argsort(order), offsets, int(counts.max()))

    def _windows(self, window: int, shift: int) -> Windows:
        coords = self.coords
        order, counts = self._sorted_by_window(window, shift)
        starts = counts.cumsum(0) - counts
        # Windows of similar size share one padded batch: sizes are rounded up to quarters of a power of two,
        # which bounds the padding at a quarter of the work.
        buckets = []
        by_size = torch.argsort(counts)
        sizes = counts[by_size].tolist()
        begin = 0
        while begin < len(sizes):
            limit = _bucket_size(sizes[begin])
            end = begin
            while end < len(sizes) and sizes[end] <= limit:
                end += 1
            members = by_size[begin:end]
            length = sizes[end - 1]
            slot = torch.arange(length, device=coords.device)
            valid = slot < counts[members].unsqueeze(1)
            rows = order[(starts[members].unsqueeze(1) + slot).clamp(max=len(coords) - 1)]
            rows = torch.where(valid, rows, rows[:, :1])
            buckets.append((rows, None if sizes[begin] == length else valid))
            begin = end
        # Padding repeats a voxel; marked with N and up it sorts behind all voxels.
        listed = torch.cat(
            [
                rows.flatten() if valid is None else torch.where(valid, rows, len(coords)).flatten()
                for rows, valid in buckets
            ]
        )
        return Windows(tuple(buckets), torch.argsort(listed)[: len(coords)])


def _bucket_size(count: int) -> int:
    quarter = max(1, 1 << max(0, count.bit_length() - 3))
    return -(-count // quarter) * quarter


@dataclass(frozen=True)
class SparseTensor:
    """Features on voxels.

    Attributes:
        feats: `[N, C]`.
        index: the voxels and their tables.
    """

    feats: Tensor
    index: SparseIndex

    @property
    def coords(self) -> Tensor:
        """Voxels `[N, 4]` (batch, x, y, z)."""
        return self.index.coords

    def replace(self, feats: Tensor) -> SparseTensor:
        """Other features on the same voxels."""
        return SparseTensor(feats, self.index)
