"""Makes this library's own voxel tables for pipelines that build theirs in another form."""

from __future__ import annotations

from typing import Any

from torch import Tensor


class VoxelTables:
    """Maker of this library's tables of a voxel set."""

    def make_index(self, coords: Tensor) -> Any:
        """Tables of voxels `[N, 4]`; a saving replaces this method on the instance by a cache."""
        from fastsam3d.modules.sparse_tensor import SparseIndex

        return SparseIndex(coords)
