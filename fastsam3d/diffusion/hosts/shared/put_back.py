"""Decoded meshes and Gaussians of SAM 3D Objects and TRELLIS: putting them back, and sparse surface extraction."""

from __future__ import annotations

from typing import Any

from fastsam3d.diffusion.maths.voxel_lattice import Lattice


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


