"""A small vocabulary for writing object families: parts are added one by one, then normalised."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastsam3d.procedural.primitives import (
    BOX,
    CAPSULE,
    COLUMNS,
    CONE,
    ELLIPSOID,
    TORUS,
    bounding_box,
    sort_table,
)

HALF_EXTENT = 0.475
MINIMUM_HALF_THICKNESS = 0.029  # a 32-voxel grid needs parts at least 1.75 voxels thick

Quaternion = tuple[float, ...]
"""Four numbers, w x y z."""
IDENTITY: Quaternion = (1.0, 0.0, 0.0, 0.0)


def about(axis: str, degrees: float) -> Quaternion:
    """Quaternion wxyz of a right-handed rotation about a coordinate axis."""
    half = np.deg2rad(degrees) / 2
    quaternion = [np.cos(half), 0.0, 0.0, 0.0]
    quaternion["xyz".index(axis) + 1] = np.sin(half)
    return tuple(float(value) for value in quaternion)


def along(direction: ArrayLike) -> Quaternion:
    """Quaternion wxyz of the shortest rotation taking +z to `direction`."""
    x, y, z = np.asarray(direction, dtype=np.float64) / np.linalg.norm(direction)
    if z < -1 + 1e-9:
        return (0.0, 1.0, 0.0, 0.0)
    quaternion = np.array([1 + z, -y, x, 0.0])
    return tuple((quaternion / np.linalg.norm(quaternion)).tolist())


class Parts:
    """Collects primitives. `mirror=True` adds the copy reflected in x = 0 as well."""

    def __init__(self) -> None:
        self.rows: list[np.ndarray] = []

    def _add(
        self,
        kind: int,
        center: ArrayLike,
        size: ArrayLike,
        color: ArrayLike,
        rotation: Quaternion = IDENTITY,
        rounding: float = 0.0,
        mirror: bool = False,
        subtract: bool = False,
        smooth: float = 0.0,
    ) -> None:
        row = np.zeros(COLUMNS)
        row[0], row[1:4], row[4:8], row[8:11] = kind, center, rotation, size
        row[11], row[12:15], row[15], row[16] = rounding, color, float(subtract), smooth
        self.rows.append(row)
        if mirror:
            other = row.copy()
            other[1] = -other[1]
            other[6:8] = -other[6:8]  # M R M with M = diag(-1, 1, 1) flips the y and z parts of the quaternion
            self.rows.append(other)

    def box(
        self,
        center: ArrayLike,
        half: Sequence[float] | np.ndarray,
        color: ArrayLike,
        rounding: float = 0.03,
        **options: Any,
    ) -> None:
        """Rounded box with half extents `half`."""
        rounding = min(rounding, 0.95 * min(half))
        self._add(BOX, center, half, color, rounding=rounding, **options)

    def cone(
        self,
        start: ArrayLike,
        end: ArrayLike,
        bottom: float,
        top: float,
        color: ArrayLike,
        rounding: float = 0.0,
        **options: Any,
    ) -> None:
        """Capped cone from `start` (radius `bottom`) to `end` (radius `top`)."""
        start, end = np.asarray(start, float), np.asarray(end, float)
        half = np.linalg.norm(end - start) / 2
        rounding = min(rounding, 0.9 * half, 0.9 * max(bottom, top))
        size = (max(bottom, rounding), half, max(top, rounding))
        self._add(CONE, (start + end) / 2, size, color, rotation=along(end - start), rounding=rounding, **options)

    def cylinder(
        self,
        start: ArrayLike,
        end: ArrayLike,
        radius: float,
        color: ArrayLike,
        rounding: float = 0.02,
        **options: Any,
    ) -> None:
        """Cylinder between two points."""
        self.cone(start, end, radius, radius, color, rounding=rounding, **options)

    def ellipsoid(self, center: ArrayLike, radii: ArrayLike, color: ArrayLike, **options: Any) -> None:
        """Ellipsoid; a single number gives a sphere."""
        radii = np.broadcast_to(np.asarray(radii, float), (3,))
        self._add(ELLIPSOID, center, radii, color, **options)

    def torus(self, center: ArrayLike, major: float, minor: float, color: ArrayLike, **options: Any) -> None:
        """Torus around the local z axis."""
        self._add(TORUS, center, (major, minor, 0.0), color, **options)

    def capsule(
        self, start: ArrayLike, end: ArrayLike, radius: float, color: ArrayLike, **options: Any
    ) -> None:
        """Capsule between two points."""
        start, end = np.asarray(start, float), np.asarray(end, float)
        length = np.linalg.norm(end - start)
        self._add(
            CAPSULE,
            (start + end) / 2,
            (radius, length / 2, 0.0),
            color,
            rotation=along(end - start),
            **options,
        )

    def table(self) -> np.ndarray:
        """The finished table, float32 `[K, 17]`: sturdy, centred, scaled to `HALF_EXTENT`, sorted."""
        table = np.stack(self.rows)
        for _ in range(3):
            table = _normalised(table)
            _thicken(table)
        return sort_table(_normalised(table)).astype(np.float32)


def _normalised(table: np.ndarray) -> np.ndarray:
    lower, upper = bounding_box(table)
    scale = 2 * HALF_EXTENT / (upper - lower).max()
    table = table.copy()
    table[:, 1:4] = (table[:, 1:4] - (lower + upper) / 2) * scale
    table[:, 8:12] *= scale
    table[:, 16] *= scale
    return table


def _thicken(table: np.ndarray) -> None:
    least = MINIMUM_HALF_THICKNESS
    kind, union = table[:, 0], table[:, 15] == 0
    for index in np.flatnonzero(union):
        if kind[index] in (BOX, ELLIPSOID):
            table[index, 8:11] = np.maximum(table[index, 8:11], least)
        elif kind[index] == CONE:
            table[index, 9] = max(table[index, 9], least)
            widest = max(table[index, 8], table[index, 10])
            if widest < 1.1 * least:
                table[index, [8, 10]] *= 1.1 * least / widest
        elif kind[index] == TORUS:
            table[index, 9] = max(table[index, 9], least)
        else:
            table[index, 8] = max(table[index, 8], least)
