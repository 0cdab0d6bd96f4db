"""Rasterises triangle meshes with a z-buffer in plain numpy: no display, no graphics driver, no loop over triangles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CANDIDATES = 2_000_000
"""Number of pixels tested at a time, counted by bounding boxes; bounds the memory (about 150 bytes a pixel)."""
SLACK = 1e-9
"""How far below 0 a barycentric weight may be: rounding must not open seams between neighbours."""
MARGIN = 1e-6
"""Pixels by which the ends of a covered piece are moved outwards before its pixels are tested."""


@dataclass(frozen=True)
class Fragments:
    """The nearest triangle of each covered pixel.

    Attributes:
        pixels: flat indices `row * width + column`, ascending, `[P]`.
        faces: index of the triangle, `[P]`.
        weights: perspective-correct barycentric weights, `[P, 3]`.
        depth: distance along the viewing axis, `[P]`.
    """

    pixels: np.ndarray
    faces: np.ndarray
    weights: np.ndarray
    depth: np.ndarray

    def interpolate(self, values: np.ndarray, triangles: np.ndarray) -> np.ndarray:
        """Interpolates a vertex attribute `[V, C]` at the pixels; returns `[P, C]`."""
        corners = triangles[self.faces]
        return sum(values[corners[:, k]] * self.weights[:, k : k + 1] for k in range(3))


def rasterize(screen: np.ndarray, depth: np.ndarray, faces: np.ndarray, width: int, height: int) -> Fragments:
    """Finds the nearest triangle of each pixel. Both sides of a triangle are drawn.

    Where two triangles are equally near, the one with the larger index is taken.

    Args:
        screen: `[V, 2]` x to the right and y down, in pixels; pixel (0, 0) has its centre at (0.5, 0.5).
        depth: `[V]` distance along the viewing axis; triangles with a corner at 0 or behind are left out.
        faces: `[F, 3]`.
        width, height: size of the grid in pixels.
    """
    kept = np.flatnonzero(np.logical_and.reduce((depth > 1e-6)[faces.T]))
    drawn = _triangles(screen, depth, faces[kept], width, height)
    nearest = np.zeros(width * height)
    owner = np.full(width * height, -1, dtype=np.int64)
    weights = np.zeros((width * height, 3))
    for first, last in _batches(drawn.heights * drawn.widths):
        found = _covered(drawn, first, last)
        pixel = found.row * width + found.column
        new = np.flatnonzero(found.near >= nearest[pixel])
        np.maximum.at(nearest, pixel[new], found.near[new])
        best = new[found.near[new] == nearest[pixel[new]]]
        target = pixel[best]
        owner[target], weights[target] = found.triangle[best], found.barycentric(best)

    pixels = np.flatnonzero(owner >= 0)
    owners = owner[pixels]
    corrected = weights[pixels] * drawn.inverse[:, owners].T
    corrected /= (corrected[:, 0] + corrected[:, 1] + corrected[:, 2])[:, None]
    return Fragments(pixels, kept[owners], corrected, 1.0 / nearest[pixels])


@dataclass(frozen=True)
class _Triangles:
    """What is known of each triangle before its pixels are looked at.

    The first two barycentric weights of a point are `slope_x * (x - origin_x) + slope_y * (y - origin_y)`.

    Attributes:
        left, top, widths, heights: box of the pixels whose centres it may cover; no height where it has no area.
        slope_x, slope_y: `[2, F]`.
        origin_x, origin_y: its last corner.
        inverse: `[3, F]`, one over the depths of its corners.
    """

    left: np.ndarray
    top: np.ndarray
    widths: np.ndarray
    heights: np.ndarray
    slope_x: np.ndarray
    slope_y: np.ndarray
    origin_x: np.ndarray
    origin_y: np.ndarray
    inverse: np.ndarray


@dataclass(frozen=True)
class _Covered:
    """Pairs of a triangle and a pixel that it covers, `[P]`, ordered by the triangle."""

    triangle: np.ndarray
    row: np.ndarray
    column: np.ndarray
    first: np.ndarray
    second: np.ndarray
    third: np.ndarray
    near: np.ndarray

    def barycentric(self, chosen: np.ndarray) -> np.ndarray:
        """Returns the weights of the corners `[C, 3]` of chosen pairs, on the screen."""
        return np.stack([self.first[chosen], self.second[chosen], self.third[chosen]], axis=1)


def _triangles(screen: np.ndarray, depth: np.ndarray, faces: np.ndarray, width: int, height: int) -> _Triangles:
    corners = faces.T
    x, y = screen[:, 0].astype(np.float64)[corners], screen[:, 1].astype(np.float64)[corners]
    left, top = (np.clip(np.ceil(v.min(axis=0) - 0.5), 0, n).astype(np.int64) for v, n in ((x, width), (y, height)))
    right, bottom = (
        np.clip(np.floor(v.max(axis=0) - 0.5) + 1, 0, n).astype(np.int64) for v, n in ((x, width), (y, height))
    )
    area = (x[1] - x[0]) * (y[2] - y[0]) - (y[1] - y[0]) * (x[2] - x[0])
    visible = np.abs(area) > 1e-12
    scale = np.divide(1.0, area, out=np.zeros_like(area), where=visible)
    widths = np.maximum(right - left, 0)
    return _Triangles(
        left,
        top,
        widths,
        np.where(visible & (widths > 0), np.maximum(bottom - top, 0), 0),
        np.stack([y[1] - y[2], y[2] - y[0]]) * scale,
        np.stack([x[2] - x[1], x[0] - x[2]]) * scale,
        x[2],
        y[2],
        1.0 / depth.astype(np.float64)[corners],
    )


def _covered(drawn: _Triangles, first: int, last: int) -> _Covered:
    """The pixels that triangles `first` to `last` cover.

    In each row of pixels the weights are linear in x. So the ends of the covered piece are computed, and only its
    pixels are tested: half as many as the box has.
    """
    triangle, step = _repeated(drawn.heights[first:last])
    triangle += first
    row = drawn.top[triangle] + step
    slopes = drawn.slope_x[:, triangle]
    bases = drawn.slope_y[:, triangle] * (row + 0.5 - drawn.origin_y[triangle])
    origin = drawn.origin_x[triangle]
    low, high = _ends(slopes, bases)
    left = drawn.left[triangle]
    right = left + drawn.widths[triangle]
    start = np.clip(np.ceil(origin + low - 0.5), left, right).astype(np.int64)
    stop = np.clip(np.floor(origin + high - 0.5) + 1, left, right).astype(np.int64)

    piece, step = _repeated(np.maximum(stop - start, 0))
    column = start[piece] + step
    offset = column + 0.5 - origin[piece]
    one = slopes[0][piece] * offset + bases[0][piece]
    two = slopes[1][piece] * offset + bases[1][piece]
    three = 1.0 - one - two
    inside = np.flatnonzero((one >= -SLACK) & (two >= -SLACK) & (three >= -SLACK))
    piece, column, one, two, three = piece[inside], column[inside], one[inside], two[inside], three[inside]
    triangle = triangle[piece]
    inverse = drawn.inverse
    near = one * inverse[0][triangle] + two * inverse[1][triangle] + three * inverse[2][triangle]
    return _Covered(triangle, row[piece], column, one, two, three, near)


def _ends(slopes: np.ndarray, bases: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The x, relative to the origin, between which all three weights are about 0 or more; a little wider than exact."""
    low, high = np.full(slopes.shape[1], -np.inf), np.full(slopes.shape[1], np.inf)
    weights = ((slopes[0], bases[0]), (slopes[1], bases[1]), (-slopes[0] - slopes[1], 1.0 - bases[0] - bases[1]))
    for slope, base in weights:
        with np.errstate(divide="ignore", invalid="ignore"):
            zero = (-2 * SLACK - base) / slope
        np.maximum(low, zero - MARGIN, out=low, where=slope > 0)
        np.minimum(high, zero + MARGIN, out=high, where=slope < 0)
        high[(slope == 0) & (base < -2 * SLACK)] = -np.inf
    return low, high


def _repeated(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index `[sum of counts]` of the count that each place belongs to, and its number there from 0 on."""
    index = np.repeat(np.arange(len(counts)), counts)
    before = np.cumsum(counts) - counts
    return index, np.arange(len(index)) - before[index]


def _batches(counts: np.ndarray) -> list[tuple[int, int]]:
    """Splits triangles into ranges of about `CANDIDATES` pixels of bounding boxes, at least one triangle each."""
    ends = np.cumsum(counts)
    batches, first = [], 0
    while first < len(counts):
        done = ends[first - 1] if first else 0
        last = max(int(np.searchsorted(ends, done + CANDIDATES, side="right")), first + 1)
        batches.append((first, last))
        first = last
    return batches
