"""Decoded meshes and Gaussians of SAM 3D Objects and TRELLIS: putting them back, and sparse surface extraction."""

from __future__ import annotations

import copy
import sys
from typing import Any

from fastsam3d.lattice import Lattice
from fastsam3d.patching import instead_of


def to_fine(result: Any, lattice: Lattice) -> None:
    """Puts one decoded object back where, and as large as, it was before its voxels were merged.

    Raises:
        TypeError: neither a mesh (`vertices`) nor Gaussians (`from_xyz`, `from_scaling`).
    """
    if hasattr(result, "vertices"):
        # The map is a shift and one scale for all axes: normals stay.
        result.vertices = lattice.object_points_to_fine(result.vertices)
    elif hasattr(result, "from_xyz"):
        scaling = result.get_scaling * lattice.factor
        result.from_xyz(lattice.object_points_to_fine(result.get_xyz))
        result.from_scaling(scaling)
    else:
        raise TypeError(f"a decoded {type(result).__name__} cannot be put back")


class SparseSurface:
    """Takes the place of a decoder's surface extraction on dense grids: the same surface from the voxels alone.

    Vertices and faces come in another order. Everything else is asked of the extraction that it stands in for.

    Args:
        dense: the pipeline's extraction, with `res` voxels a side.
    """

    def __init__(self, dense: Any) -> None:
        self._dense = dense

    def __getattr__(self, name: str) -> Any:
        if name == "_dense":  # asked for while a copy is made, before there is one
            raise AttributeError(name)
        return getattr(self._dense, name)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """A copy of the pipeline gets what was there before."""
        return copy.deepcopy(self._dense, memo)

    def __reduce__(self) -> Any:
        return instead_of, (self._dense,)

    def __call__(self, features: Any, training: bool = False) -> Any:
        """The mesh of one object's sparse tensor `[M, 101]`."""
        from fastsam3d.models.flexicubes import CHANNELS, extract_surface

        if training or features.feats.shape[1] != CHANNELS:
            return self._dense(features, training=training)
        surface = extract_surface(features.coords[:, 1:], features.feats, self._dense.res)
        result = getattr(sys.modules[type(self._dense).__module__], "MeshExtractResult")  # noqa: B009
        return result(
            vertices=surface.vertices, faces=surface.faces, vertex_attrs=surface.attributes, res=self._dense.res
        )

    @classmethod
    def fits(cls, dense: Any) -> bool:
        """Whether an extraction is of the known kind: dense grid, six colours, and a result class beside it."""
        module = sys.modules.get(type(dense).__module__)
        channels = getattr(dense, "feats_channels", None)
        return hasattr(dense, "res") and channels == 101 and hasattr(module, "MeshExtractResult")
