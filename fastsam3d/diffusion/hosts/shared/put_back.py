"""Puts decoded meshes and Gaussians back where they were before their voxels were merged."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from fastsam3d.diffusion.vocabulary import WayBack


def to_fine(value: Any, lattice: WayBack) -> Any:
    """Puts one decoded object back where, and as large as, it was before its voxels were merged.

    Args:
        value: a mesh (`vertices [V, 3]`, in the object frame), or Gaussians: those of SAM 3D Objects and TRELLIS
            (`get_xyz`, `from_xyz`, `get_scaling`, `from_scaling`), or this library's (`xyz`, `with_scaling`).
        lattice: the way back.

    Returns:
        A new object for a dataclass. Other objects are changed in place and returned.

    Raises:
        TypeError: `value` is neither a mesh nor Gaussians.
    """
    if hasattr(value, "vertices"):
        # The map is a shift and one scale for all axes: normals stay.
        vertices = _points_to_fine(value.vertices, lattice)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return dataclasses.replace(value, vertices=vertices)
        value.vertices = vertices
        return value
    # Standard deviations grow with the cells.
    if hasattr(value, "from_xyz"):
        scaling = value.get_scaling * lattice.factor
        value.from_xyz(lattice.object_points_to_fine(value.get_xyz))
        value.from_scaling(scaling)
        return value
    if hasattr(value, "with_scaling"):
        # Centres lie in the unit cube.
        moved = dataclasses.replace(value, xyz=lattice.object_points_to_fine(value.xyz - 0.5) + 0.5)
        return moved.with_scaling(value.get_scaling * lattice.factor)
    raise TypeError(f"a decoded {type(value).__name__} cannot be put back: it is neither a mesh nor Gaussians")


def _points_to_fine(points: Any, lattice: WayBack) -> Any:
    """Points as a tensor or as a numpy array, in the type that they had."""
    if isinstance(points, Tensor):
        return lattice.object_points_to_fine(points)
    return lattice.object_points_to_fine(torch.as_tensor(points)).numpy().astype(points.dtype)
