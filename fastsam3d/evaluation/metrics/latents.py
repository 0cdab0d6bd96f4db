"""Latents of two reconstructions, compared voxel by voxel."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastsam3d.evaluation.metrics.surfaces import as_array


@dataclass(frozen=True)
class VoxelLatents:
    """Latents of a reconstruction: voxels `[N, 3]`, whole numbers, and values `[N, C]` at them."""

    voxels: np.ndarray
    values: np.ndarray


def latents_of(reconstruction: Any) -> VoxelLatents | None:
    """The latents of a reconstruction.

    None where a pipeline does not keep them, and where they belong to other voxels than those of the structure: a
    method that merges or drops voxels samples the latents of the remaining ones.
    """
    structure, feats = getattr(reconstruction, "structure", None), getattr(reconstruction, "feats", None)
    if structure is None or feats is None or len(feats) != len(structure.coords):
        return None
    return VoxelLatents(as_array(structure.coords, np.int64)[:, 1:], as_array(feats))


def latent_error(own: VoxelLatents | None, reference: VoxelLatents | None) -> float:
    """Relative L2 error of latents, at the voxels that both have: |own - reference| / |reference|.

    NaN where either is not known, or no voxel is in both.
    """
    if own is None or reference is None or not len(own.voxels) or not len(reference.voxels):
        return math.nan
    side = int(max(own.voxels.max(), reference.voxels.max())) + 1
    weights = np.array([side * side, side, 1])
    _, mine, theirs = np.intersect1d(own.voxels @ weights, reference.voxels @ weights, return_indices=True)
    if not len(mine):
        return math.nan
    difference = own.values[mine] - reference.values[theirs]
    return float(np.linalg.norm(difference) / max(float(np.linalg.norm(reference.values[theirs])), 1e-12))
