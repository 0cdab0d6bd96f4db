"""Colours and materials that are stored in the voxels of a thin shell, as TRELLIS.2 gives them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fastsam3d.basics.optional import optional_module

EXTRA, PURPOSE = "texture", "baking a texture"
CORNERS = np.array([(x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 1)])


@dataclass(frozen=True)
class VoxelColors:
    """Values at the centres of voxels.

    Attributes:
        coords: int64 `[N, 3]`; the centre of voxel c is at `origin + (c + 0.5) * side`.
        values: fp32 `[N, C]`, 0..1.
        origin: corner of voxel (0, 0, 0) `[3]`.
        side: of a voxel.
        layout: columns of `values` by name; `base_color` is one of them (sRGB).
    """

    coords: np.ndarray
    values: np.ndarray
    origin: np.ndarray
    side: float
    layout: Mapping[str, slice]

    def sample(self, points: np.ndarray) -> np.ndarray:
        """Interpolates the values at points `[P, 3]` between the eight voxels around each; returns `[P, C]`.

        Missing voxels have no weight. A point without any voxel around it takes the values of the nearest voxel.

        Raises:
            UserError: SciPy is needed for such points and is not installed.
        """
        low = self.coords.min(axis=0) - 1
        span = self.coords.max(axis=0) + 2 - low
        place = (points - self.origin) / self.side - 0.5
        base = np.floor(place).astype(np.int64)
        share = place - base
        keys = self._keys(self.coords, low, span)
        order = np.argsort(keys)
        keys = keys[order]
        total = np.zeros((len(points), self.values.shape[1]))
        weights = np.zeros(len(points))
        for corner in CORNERS:
            voxel = base + corner
            inside = ((voxel >= low) & (voxel < low + span)).all(axis=1)
            wanted = self._keys(np.where(inside[:, None], voxel, low), low, span)
            slot = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
            found = inside & (keys[slot] == wanted)
            weight = np.where(corner, share, 1 - share).prod(axis=1) * found
            total += weight[:, None] * self.values[order[slot]]
            weights += weight
        known = weights > 1e-6
        result = total / np.maximum(weights, 1e-6)[:, None]
        if not known.all():
            tree = optional_module("scipy.spatial", PURPOSE, EXTRA).cKDTree(self.coords + 0.5)
            result[~known] = self.values[tree.query(place[~known] + 0.5)[1]]
        return result

    @staticmethod
    def _keys(coords: np.ndarray, low: np.ndarray, span: np.ndarray) -> np.ndarray:
        x, y, z = (coords - low).T
        return (x * span[1] + y) * span[2] + z
