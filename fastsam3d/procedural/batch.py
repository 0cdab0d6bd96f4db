"""Signed distances and colours of many objects at once, on any device, for training data made on a GPU.

The twin of `fastsam3d.procedural.primitives.CompiledTable` for a batch of tables; formulas and order of operations are
the same. Everything is laid out object by object, so that one launch serves hundreds of objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fastsam3d.procedural import primitives
from fastsam3d.procedural.primitives import BOX, CAPSULE, COLUMNS, CONE, ELLIPSOID, TORUS, rotation_matrices


def padded_tables(tables: Sequence[np.ndarray], parts: int) -> tuple[np.ndarray, np.ndarray]:
    """Tables `[K_i, 17]` as one array `[B, parts, 17]` with zero rows at the end, and the numbers of rows `[B]`."""
    stacked = np.zeros((len(tables), parts, COLUMNS), np.float32)
    for row, table in enumerate(tables):
        stacked[row, : len(table)] = table
    return stacked, np.array([len(table) for table in tables], np.int64)


@dataclass
class TableBatch:
    """Objects ready for evaluation.

    Attributes:
        matrices, offsets: world to local, `[B, K, 3, 3]` and `[B, K, 3]`.
        size, rounding, colors, smooth: columns of the tables, `[B, K, 3]`, `[B, K]`, `[B, K, 3]`, `[B, K]`.
        union, subtraction: which rows are which, bool `[B, K]`; both false where a table has no such row.
        rows: flat rows `b * K + k` of each type of primitive.
        smoothed: columns that hold a smooth union in any object.
    """

    matrices: Tensor
    offsets: Tensor
    size: Tensor
    rounding: Tensor
    colors: Tensor
    smooth: Tensor
    union: Tensor
    subtraction: Tensor
    rows: dict[int, Tensor]
    smoothed: list[int]

    @classmethod
    def from_tables(cls, tables: np.ndarray, parts: np.ndarray, device: torch.device | str = "cpu") -> TableBatch:
        """Prepares padded tables `[B, K, 17]` with `parts [B]` rows in use each, see `padded_tables`."""
        tables = tables[:, : max(1, int(parts.max()))]
        batch, count = tables.shape[:2]
        world_to_local = rotation_matrices(_unit(tables[..., 4:8]).reshape(-1, 4)).transpose(0, 2, 1)
        world_to_local = world_to_local.reshape(batch, count, 3, 3)
        offsets = -np.einsum("bkij,bkj->bki", world_to_local, tables[..., 1:4])
        used = np.arange(count) < parts[:, None]
        union, subtraction = used & (tables[..., 15] == 0), used & (tables[..., 15] != 0)
        kinds = np.where(used, tables[..., 0].astype(np.int64), -1).reshape(-1)
        smooth = np.where(union, tables[..., 16], 0.0)
        smooth[:, 0] = 0.0  # nothing comes before the first row

        def put(array: np.ndarray) -> Tensor:
            dtype = np.float32 if array.dtype.kind == "f" else array.dtype
            return torch.from_numpy(np.ascontiguousarray(array, dtype=dtype)).to(device)

        return cls(
            put(world_to_local),
            put(offsets),
            put(tables[..., 8:11]),
            put(tables[..., 11]),
            put(tables[..., 12:15]),
            put(smooth),
            put(union),
            put(subtraction),
            {kind: put(np.flatnonzero(kinds == kind)) for kind in range(5) if (kinds == kind).any()},
            np.flatnonzero((smooth > 0).any(0)).tolist(),
        )

    def __len__(self) -> int:
        return len(self.matrices)

    def distances(self, points: Tensor) -> Tensor:
        """Distance of points `[B, P, 3]` to every primitive of their object, `[B, K, P]`; infinite for unused rows."""
        batch, count = self.union.shape
        columns = points.transpose(1, 2)
        out = points.new_full((batch * count, points.shape[1]), torch.inf)
        size, rounding = self.size.flatten(0, 1), self.rounding.flatten()
        for kind, rows in self.rows.items():
            # Written out: a library's product of 3 x 3 matrices fills a GPU's tiles to a hundredth.
            turn, at = self.matrices.flatten(0, 1)[rows].unsqueeze(3), columns[rows // count].unsqueeze(1)
            local = self.offsets.flatten(0, 1)[rows].unsqueeze(2) + turn[:, :, 0] * at[:, :, 0]
            local = local.addcmul_(turn[:, :, 1], at[:, :, 1]).addcmul_(turn[:, :, 2], at[:, :, 2])
            out[rows] = _primitive(kind, local, size[rows], rounding[rows])
        return out.view(batch, count, -1)

    def combine(self, distances: Tensor) -> Tensor:
        """Signed distance `[B, P]` of the objects from `distances [B, K, P]`."""
        sharp = self.union & (self.smooth == 0)
        result = distances.masked_fill(~sharp.unsqueeze(2), torch.inf).amin(1)
        for column in self.smoothed:
            width, other = self.smooth[:, column, None], distances[:, column]
            gap = (width - (result - other).abs()).clamp_min(0)
            joined = torch.minimum(result, other) - gap * gap * (0.25 / width.clamp_min(1e-12))
            result = torch.where(width > 0, joined, result)
        if self.subtraction.any():
            cut = distances.masked_fill(~self.subtraction.unsqueeze(2), torch.inf).amin(1)
            result = torch.maximum(result, -cut)
        return result

    def sdf(self, points: Tensor) -> Tensor:
        """Signed distance `[B, P]` (negative inside) at points `[B, P, 3]` in the objects' frames."""
        return self.combine(self.distances(points))

    def sdf_and_color(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Signed distance `[B, P]` and colour of the nearest union primitive `[B, P, 3]`, 0..1."""
        distances = self.distances(points)
        nearest = distances.masked_fill(~self.union.unsqueeze(2), torch.inf).argmin(1)
        color = self.colors.gather(1, nearest.unsqueeze(2).expand(-1, -1, 3))
        return self.combine(distances), color


def _unit(quaternions: np.ndarray) -> np.ndarray:
    # Unused rows hold zeros; any rotation will do for them.
    return np.where(np.abs(quaternions).sum(-1, keepdims=True) > 0, quaternions, np.eye(4)[0])


def _primitive(kind: int, local: Tensor, size: Tensor, rounding: Tensor) -> Tensor:
    if kind == BOX:
        return primitives.box_distance(local, size, rounding)
    if kind == CONE:
        return primitives.cone_distance(local, size, rounding)
    if kind == ELLIPSOID:
        return primitives.ellipsoid_distance(local, size)
    if kind == TORUS:
        return primitives.torus_distance(local, size)
    assert kind == CAPSULE
    return primitives.capsule_distance(local, size)
