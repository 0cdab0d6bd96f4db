"""Colours of surface points from the Gaussians around them, without a camera and without optimisation.

A point gets the colour that is seen straight from outside: Gaussians are blended front to back along the normal, as a
renderer does it along a ray (Kerbl et al. 2023, equation 3; the projection is orthographic). Only Gaussians near the
surface count, so nothing in front of the surface hides it. The sum is divided by its weights, so half-transparent
Gaussians do not darken the colour.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fastsam3d.meshes.splats.compositing import LEAST_OPAQUE, MOST_OPAQUE, composite, expand
from fastsam3d.meshes.splats.grid import BallLevel, GridLevel, ball_levels
from fastsam3d.meshes.splats.splats import REACH, Splats

PAIRS, PAIRS_ON_GPU = 125_000, 8_000_000
"""Pairs of a point and a Gaussian that are looked at together: on a CPU they fit into its cache."""
SHARE_OF_EXTENT, SHARE_OF_DEVIATION = 0.001, 1.0
"""Default depth of the layer: of the diagonal of all centres, and of the median Gaussian's largest deviation."""
DEEPER = (1.0, 2.0, 4.0)
"""Depths below the surface that `fitted_gathering` tries, in default depths."""
WELL_COVERED = 0.5
"""Coverage from which it counts a point as covered."""
MOSTLY = 0.9
"""It takes the first depth at which this share of the points is covered, or else the depth that covers most points."""
TRIED = 2000
"""Number of points that it tries the depths on, about."""


def layer_depth(splats: Splats) -> float:
    """Computes how far above and below a surface Gaussians count by default, in the unit of their centres."""
    if not len(splats):
        return 0.0
    some = splats.centers[:: max(1, len(splats) // 100_000)]
    low, high = torch.quantile(some, torch.tensor([0.01, 0.99]).to(some), dim=0)
    typical = float(splats.deviations.amax(dim=1).median())
    return SHARE_OF_EXTENT * float((high - low).norm()) + SHARE_OF_DEVIATION * typical


@dataclass(frozen=True)
class _Columns:
    """Values of each Gaussian, one column for each number, because rows of three are slow."""

    centers: tuple[Tensor, ...]
    reach: Tensor
    whitening: tuple[tuple[Tensor, ...], ...]
    opacities: Tensor
    colors: Tensor

    @classmethod
    def of(cls, splats: Splats) -> _Columns:
        rows = tuple(tuple(row.T.contiguous()) for row in splats.whitening.unbind(dim=1))
        reach = (REACH * splats.deviations.amax(dim=1)) ** 2
        return cls(tuple(splats.centers.T.contiguous()), reach, rows, splats.opacities, splats.colors)


class Gathering:
    """Gathers the colours of surface points from Gaussians; what does not depend on the points is prepared once."""

    def __init__(self, splats: Splats, depth: float | None = None, below: float | None = None) -> None:
        """Prepares.

        Args:
            splats: the Gaussians.
            depth: how far above the surface the centres of Gaussians count; default: `layer_depth`.
            below: the same for below the surface; default: as far as above.
        """
        self.depth = layer_depth(splats) if depth is None else depth
        self.below = self.depth if below is None else below
        splats = splats.select(splats.opacities >= LEAST_OPAQUE)
        farthest = max(self.depth, self.below)
        radii = torch.sqrt((REACH * splats.deviations.amax(dim=1)) ** 2 + farthest**2).clamp(min=1e-9)
        self._levels: list[BallLevel] = ball_levels(splats.centers, radii)
        self._packed = _Columns.of(splats)

    @torch.no_grad()
    def colors(self, points: Tensor, normals: Tensor) -> tuple[Tensor, Tensor]:
        """Gathers the colours of points; see `gather_colors`."""
        colors, coverage = torch.zeros_like(points), points.new_zeros(len(points))
        if not self._levels or not len(points):
            return colors, coverage
        # Neighbours in space one after the other: they read the same Gaussians, which are in the cache then.
        fullest = max(self._levels, key=lambda level: len(level.balls))
        order = torch.argsort(fullest.cells(points))
        points, normals = points[order], normals[order]
        levels = [level.near(points) for level in self._levels]
        total = torch.stack([level.length for level in levels]).sum(dim=0)
        ends = torch.cumsum(total, 0)
        batch = PAIRS if points.device.type == "cpu" else PAIRS_ON_GPU
        first = 0
        while first < len(points):
            done = int(ends[first - 1]) if first else 0
            last = int(torch.searchsorted(ends, torch.tensor(done + batch, device=ends.device), right=True))
            last = min(max(last, first + 1), len(points))
            rows = slice(first, last)
            part = [GridLevel(level.begin[rows], level.length[rows], level.members) for level in levels]
            place, facing = (tuple(values[rows].T.contiguous()) for values in (points, normals))
            target = order[rows]
            layer = self.depth, self.below
            colors[target], coverage[target] = _gather_some(place, facing, self._packed, part, layer)
            first = last
        return colors, coverage


def fitted_gathering(splats: Splats, points: Tensor, normals: Tensor) -> Gathering:
    """Makes a `Gathering` that looks as deep below the surface as these Gaussians lie.

    Some models put the centres of Gaussians under the surface, so that they do not stick out at edges. The default
    depth misses them. A depth that is not needed costs time, because more Gaussians are looked at. So the depths in
    `DEEPER` are tried on some of the points first, see `MOSTLY`.

    Args:
        splats, points, normals: as for `gather_colors`.
    """
    step = max(1, len(points) // TRIED)
    best, share = Gathering(splats), -1.0
    for factor in DEEPER:
        gathering = best if factor == DEEPER[0] else Gathering(splats, below=factor * best.depth)
        covered = gathering.colors(points[::step], normals[::step])[1] >= WELL_COVERED
        found = float(covered.float().mean()) if len(covered) else 1.0
        if found > share:
            best, share = gathering, found
        if found >= MOSTLY:
            break
    return best


def gather_colors(
    points: Tensor, normals: Tensor, splats: Splats, depth: float | None = None, below: float | None = None
) -> tuple[Tensor, Tensor]:
    """Gathers the colours of surface points from Gaussians.

    Args:
        points, normals: `[P, 3]` fp32, normals unit and outward, on the device of `splats`.
        splats: the Gaussians, in the frame of the points.
        depth: how far above the surface the centres of Gaussians count; default: `layer_depth`.
        below: the same for below the surface; default: as far as above.

    Returns:
        (colours `[P, 3]` sRGB 0..1, coverage `[P]` 0..1). The coverage is the opacity of the layer at the point; where
        it is 0, the colour is 0 too and means nothing.
    """
    return Gathering(splats, depth, below).colors(points, normals)


def _gather_some(
    points: tuple[Tensor, ...],
    normals: tuple[Tensor, ...],
    packed: _Columns,
    levels: list[GridLevel],
    layer: tuple[float, float],
) -> tuple[Tensor, Tensor]:
    """The same for some of the points, whose coordinates come as three columns each, within a depth above and below."""
    depth, below = layer
    pairs = []
    for level in levels:
        point, number = expand(level.length)
        member = level.members.index_select(0, level.begin.index_select(0, point) + number)
        x, y, z = (
            _take(own, point) - _take(centre, member) for own, centre in zip(points, packed.centers, strict=True)
        )
        nx, ny, nz = (_take(own, point) for own in normals)
        height = -(x * nx + y * ny + z * nz)
        # First what is far away across the normal, whatever its shape: most of what the cells list.
        apart = x * x + y * y + z * z - height * height
        near = torch.nonzero((height <= depth) & (height >= -below) & (apart <= _take(packed.reach, member))).flatten()
        pairs.append(tuple(_take(column, near) for column in (point, member, x, y, z, nx, ny, nz, height)))
    columns = pairs[0] if len(pairs) == 1 else [torch.cat(column) for column in zip(*pairs, strict=True)]
    point, member, x, y, z, nx, ny, nz, height = columns
    away, along = [], []
    for first, second, third in packed.whitening:
        a, b, c = _take(first, member), _take(second, member), _take(third, member)
        away.append(a * x + b * y + c * z)
        along.append(a * nx + b * ny + c * nz)
    dot = away[0] * along[0] + away[1] * along[1] + away[2] * along[2]
    own = along[0] * along[0] + along[1] * along[1] + along[2] * along[2]
    share = dot / own
    # The part of the offset that lies across the ray, in standard deviations.
    parts = [there - share * ray for there, ray in zip(away, along, strict=True)]
    square = parts[0] * parts[0] + parts[1] * parts[1] + parts[2] * parts[2]
    alpha = (_take(packed.opacities, member) * torch.exp(-0.5 * square)).clamp_(max=MOST_OPAQUE)
    seen = torch.nonzero((square <= REACH**2) & (alpha >= LEAST_OPAQUE)).flatten()
    point, height = _take(point, seen), _take(height, seen)
    # From the highest to the lowest, point by point: both in one key.
    order = torch.argsort(point.double() + (0.25 - 0.25 / max(depth, below, 1e-30) * height.double()))
    chosen = _take(seen, order)
    colors = packed.colors.index_select(0, _take(member, chosen))
    sums, weight = composite(_take(point, order), _take(alpha, chosen), colors, len(points[0]))
    return sums / weight.clamp(min=1e-12)[:, None], weight


def _take(column: Tensor, rows: Tensor) -> Tensor:
    return column.index_select(0, rows)  # much faster than column[rows] on a CPU


def gather_colors_plain(
    points: Tensor, normals: Tensor, splats: Splats, depth: float | None = None, below: float | None = None
) -> tuple[Tensor, Tensor]:
    """Gathers colours as `gather_colors` does, its plain twin: every point with every Gaussian, in fp64."""
    depth = layer_depth(splats) if depth is None else depth
    below = depth if below is None else below
    colors, coverage = np.zeros((len(points), 3)), np.zeros(len(points))
    whitening = splats.whitening.double().numpy()
    centers, opacities = splats.centers.double().numpy(), splats.opacities.double().numpy()
    tints = splats.colors.double().numpy()
    for index, (point, normal) in enumerate(zip(points.double().numpy(), normals.double().numpy(), strict=True)):
        heights = (centers - point) @ normal
        through = 1.0
        for member in np.argsort(-heights, kind="stable").tolist():
            if not -below <= heights[member] <= depth:
                continue
            away, along = whitening[member] @ (point - centers[member]), whitening[member] @ normal
            across = away - along * (away @ along) / (along @ along)
            square = float(across @ across)
            alpha = min(opacities[member] * math.exp(-0.5 * square), MOST_OPAQUE)
            if square > REACH**2 or alpha < LEAST_OPAQUE:
                continue
            colors[index] += through * alpha * tints[member]
            coverage[index] += through * alpha
            through *= 1 - alpha
    colors /= np.maximum(coverage, 1e-12)[:, None]
    return torch.from_numpy(colors).to(points), torch.from_numpy(coverage).to(points)
