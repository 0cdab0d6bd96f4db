"""Signed distance primitives held in one compact float table.

An object is a float32 array `[K, 17]`, one row per primitive, with the columns

====== =================================================================================================
0      type: 0 box, 1 cone, 2 ellipsoid, 3 torus, 4 capsule
1-3    centre
4-7    rotation, quaternion wxyz; world = rotate(local) + centre
8-10   size: box half extents; cone (bottom radius, half height, top radius); ellipsoid radii;
       torus (major, minor radius, unused); capsule (radius, half length of the axis, unused)
11     rounding radius (already contained in the size)
12-14  colour, 0..1
15     operation: 0 union, 1 subtraction (subtractions act after all unions)
16     smooth radius of the union with the rows before it
====== =================================================================================================

Axes of cone, torus and capsule are the local z axis. Rows are sorted by operation and type so that each
type is evaluated as one contiguous slice. Distance formulas: I. Quilez, "Distance functions".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

BOX, CONE, ELLIPSOID, TORUS, CAPSULE = range(5)
COLUMNS = 17
CHUNK = 8192  # points per block: the intermediate arrays then stay in the second-level cache


def rotation_matrices(quaternions: np.ndarray) -> np.ndarray:
    """Unit quaternions wxyz `[K, 4]` to matrices `[K, 3, 3]` acting on column vectors."""
    w, x, y, z = np.asarray(quaternions, dtype=np.float64).T
    return np.stack(
        [
            1 - 2 * (y * y + z * z),
            2 * (x * y - w * z),
            2 * (x * z + w * y),
            2 * (x * y + w * z),
            1 - 2 * (x * x + z * z),
            2 * (y * z - w * x),
            2 * (x * z - w * y),
            2 * (y * z + w * x),
            1 - 2 * (x * x + y * y),
        ],
        axis=-1,
    ).reshape(-1, 3, 3)


def sort_table(table: np.ndarray) -> np.ndarray:
    """Orders rows by operation, then type (stable), as `CompiledTable` requires."""
    return table[np.lexsort((table[:, 0], table[:, 15]))]


def bounding_box(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tight axis-aligned bounds (lower, upper) of the union rows; subtractions and smoothing are ignored."""
    rows = table[table[:, 15] == 0].astype(np.float64)
    matrices = rotation_matrices(rows[:, 4:8])
    lower, upper = np.full(3, np.inf), np.full(3, -np.inf)
    for row, matrix in zip(rows, matrices, strict=True):
        kind, centre, size, axis = int(row[0]), row[1:4], row[8:11], matrix[:, 2]
        disc = np.sqrt(np.maximum(1 - axis * axis, 0))
        if kind == BOX:
            core = np.abs(matrix) @ (size - row[11]) + row[11]
            low, high = -core, core
        elif kind == CONE:
            bottom, top, height = disc * size[0], disc * size[2], axis * size[1]
            low = np.minimum(-height - bottom, height - top)
            high = np.maximum(-height + bottom, height + top)
        elif kind == ELLIPSOID:
            high = np.sqrt(((matrix * size) ** 2).sum(1))
            low = -high
        elif kind == TORUS:
            high = disc * size[0] + size[1]
            low = -high
        else:
            high = np.abs(axis) * size[1] + size[0]
            low = -high
        lower, upper = np.minimum(lower, centre + low), np.maximum(upper, centre + high)
    return lower, upper


def box_distance(local: Tensor, size: Tensor, rounding: Tensor) -> Tensor:
    """Rounded boxes: half extents `size [K, 3]`, at `local [K, 3, N]`; `[K, N]`."""
    q = local.abs() - (size - rounding[:, None])[:, :, None]
    outside = q.clamp_min(0).square().sum(1).sqrt()
    return outside + q.amax(1).clamp_max(0) - rounding[:, None]


def cone_distance(local: Tensor, size: Tensor, rounding: Tensor) -> Tensor:
    """Capped, rounded cones along z: `size` holds bottom radius, half height, top radius."""
    inner = (size - rounding[:, None]).clamp_min(0)
    r1, h, r2 = inner[:, 0, None], inner[:, 1, None], inner[:, 2, None]
    radius, z = local[:, :2].square().sum(1).sqrt(), local[:, 2]
    cap_r = radius - torch.minimum(radius, torch.where(z < 0, r1, r2))
    cap_z = z.abs() - h
    k2r, k2z = r2 - r1, 2 * h
    t = (((r2 - radius) * k2r + (h - z) * k2z) / (k2r * k2r + k2z * k2z).clamp_min(1e-12)).clamp(0, 1)
    side_r, side_z = radius - r2 + k2r * t, z - h + k2z * t
    inside = (side_r < 0) & (cap_z < 0)
    distance = torch.minimum(cap_r * cap_r + cap_z * cap_z, side_r * side_r + side_z * side_z).sqrt()
    return torch.where(inside, -distance, distance) - rounding[:, None]


def ellipsoid_distance(local: Tensor, size: Tensor) -> Tensor:
    """Ellipsoids with radii `size`; a bound, exact on the surface."""
    scaled = local / size[:, :, None]
    k0 = scaled.square().sum(1).sqrt()
    k1 = (scaled / size[:, :, None]).square().sum(1).sqrt()
    # at the centre both vanish; the smallest radius is the right limit up to the bound's accuracy
    return torch.where(k1 > 1e-6, k0 * (k0 - 1) / k1.clamp_min(1e-6), -size.amin(1)[:, None])


def torus_distance(local: Tensor, size: Tensor) -> Tensor:
    """Tori around z: `size` holds major and minor radius."""
    ring = local[:, :2].square().sum(1).sqrt() - size[:, 0, None]
    return (ring.square() + local[:, 2].square()).sqrt() - size[:, 1, None]


def capsule_distance(local: Tensor, size: Tensor) -> Tensor:
    """Capsules along z: `size` holds radius and half length of the axis."""
    half = size[:, 1, None]
    along = local[:, 2] - torch.maximum(torch.minimum(local[:, 2], half), -half)
    return (local[:, :2].square().sum(1) + along.square()).sqrt() - size[:, 0, None]


@dataclass
class CompiledTable:
    """A sorted table turned into tensors for repeated evaluation."""

    matrices: Tensor  # [K, 3, 3], world to local
    offsets: Tensor  # [K, 3, 1]
    size: Tensor
    rounding: Tensor
    colors: Tensor
    smooth: list[float]
    slices: list[tuple[int, int, int]]  # (type, first row, end row)
    unions: int

    @classmethod
    def from_table(cls, table: np.ndarray) -> CompiledTable:
        """Compiles rows `[K, 17]` (they must be sorted by `sort_table`)."""
        world_to_local = rotation_matrices(table[:, 4:8]).transpose(0, 2, 1)
        offsets = -np.einsum("kij,kj->ki", world_to_local, table[:, 1:4])[..., None]
        slices, start = [], 0
        keys = [(row[15], row[0]) for row in table]
        for index in range(1, len(keys) + 1):
            if index == len(keys) or keys[index] != keys[start]:
                slices.append((int(keys[start][1]), start, index))
                start = index
        as_tensor = lambda array: torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))  # noqa: E731
        return cls(
            as_tensor(world_to_local),
            as_tensor(offsets),
            as_tensor(table[:, 8:11]),
            as_tensor(table[:, 11]),
            as_tensor(table[:, 12:15]),
            table[:, 16].tolist(),
            slices,
            int((table[:, 15] == 0).sum()),
        )

    def distances(self, points: Tensor) -> Tensor:
        """Distance of points `[N, 3]` to every primitive, `[K, N]`."""
        local = torch.matmul(self.matrices, points.t()) + self.offsets
        parts = []
        for kind, first, end in self.slices:
            piece, size, rounding = local[first:end], self.size[first:end], self.rounding[first:end]
            if kind == BOX:
                parts.append(box_distance(piece, size, rounding))
            elif kind == CONE:
                parts.append(cone_distance(piece, size, rounding))
            elif kind == ELLIPSOID:
                parts.append(ellipsoid_distance(piece, size))
            elif kind == TORUS:
                parts.append(torus_distance(piece, size))
            else:
                parts.append(capsule_distance(piece, size))
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def _combine(self, distances: Tensor) -> Tensor:
        union = distances[: self.unions]
        smooth = self.smooth[: self.unions]
        if max(smooth[1:], default=0.0) == 0.0:
            result = union.amin(0)
        else:
            sharp = [index for index in range(self.unions) if index == 0 or smooth[index] == 0]
            result = union[sharp].amin(0)
            for index in range(1, self.unions):
                k = smooth[index]
                if k > 0:
                    gap = (k - (result - union[index]).abs()).clamp_min_(0)
                    result = torch.minimum(result, union[index]) - gap * gap * (0.25 / k)
        if self.unions < len(distances):
            result = torch.maximum(result, -distances[self.unions :].amin(0))
        return result

    def sdf(self, points: Tensor) -> Tensor:
        """Signed distance (negative inside) at points `[N, 3]`, `[N]`, in units of the object frame."""
        if len(points) <= CHUNK:
            return self._combine(self.distances(points))
        return torch.cat([self._combine(self.distances(block)) for block in points.split(CHUNK)])

    def sdf_and_color(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Signed distance `[N]` and colour of the nearest union primitive `[N, 3]` at points `[N, 3]`."""
        results = []
        for block in points.split(CHUNK):
            distances = self.distances(block)
            results.append((self._combine(distances), self.colors[distances[: self.unions].argmin(0)]))
        return torch.cat([d for d, _ in results]), torch.cat([c for _, c in results])

    def color(self, points: Tensor) -> Tensor:
        """Colour `[N, 3]` of the nearest union primitive at points `[N, 3]`."""
        return self.sdf_and_color(points)[1]
