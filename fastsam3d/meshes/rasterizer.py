"""Rasterises triangle meshes with a z-buffer in plain numpy: no display, no graphics driver, no loop over triangles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CANDIDATES = 2_000_000
"""Number of pixels tested at a time, counted by bounding boxes; bounds the memory (about 150 bytes a pixel)."""


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

    Args:
        screen: `[V, 2]` x to the right and y down, in pixels; pixel (0, 0) has its centre at (0.5, 0.5).
        depth: `[V]` distance along the viewing axis; triangles with a corner at 0 or behind are left out.
        faces: `[F, 3]`.
        width, height: size of the grid in pixels.
    """
    kept = np.flatnonzero((depth[faces] > 1e-6).all(axis=1))
    triangles = screen[faces[kept]].astype(np.float64)
    inverse = 1.0 / depth[faces[kept]].astype(np.float64)
    low = np.clip(np.ceil(triangles.min(axis=1) - 0.5), 0, [width, height]).astype(np.int64)
    high = np.clip(np.floor(triangles.max(axis=1) - 0.5) + 1, 0, [width, height]).astype(np.int64)
    spans = np.maximum(high - low, 0)
    counts = spans[:, 0] * spans[:, 1]

    nearest = np.zeros(width * height)
    owner = np.full(width * height, -1, dtype=np.int64)
    weights = np.zeros((width * height, 3))
    for first, last in _batches(counts):
        index = np.repeat(np.arange(first, last), counts[first:last])
        if not len(index):
            continue
        ends = np.cumsum(counts[first:last])
        within = np.arange(len(index)) - np.repeat(ends - counts[first:last], counts[first:last])
        column = low[index, 0] + within % spans[index, 0]
        row = low[index, 1] + within // spans[index, 0]
        inside, barycentric = _barycentric(triangles, index, column + 0.5, row + 0.5)
        index, pixel = index[inside], (row * width + column)[inside]
        near = (barycentric * inverse[index]).sum(axis=1)
        # An assignment through repeated indices keeps the last value, which this order makes the nearest.
        order = np.argsort(near, kind="stable")
        order = order[near[order] > nearest[pixel[order]]]
        target = pixel[order]
        nearest[target], owner[target], weights[target] = near[order], index[order], barycentric[order]

    pixels = np.flatnonzero(owner >= 0)
    owners = owner[pixels]
    corrected = weights[pixels] * inverse[owners]
    corrected /= corrected.sum(axis=1, keepdims=True)
    return Fragments(pixels, kept[owners], corrected, 1.0 / nearest[pixels])


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


def _barycentric(
    triangles: np.ndarray, index: np.ndarray, x: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Tests which points lie in their triangle `index`.

    Returns:
        (mask of the points inside, barycentric weights `[inside, 3]`).
    """
    a, b, c = triangles.transpose(1, 0, 2)
    area = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    scale = np.divide(1.0, area, out=np.zeros_like(area), where=np.abs(area) > 1e-12)
    # Each weight is linear in x and y; its three coefficients are made once per triangle, not per pixel.
    slope_x = np.stack([b[:, 1] - c[:, 1], c[:, 1] - a[:, 1]], axis=1) * scale[:, None]
    slope_y = np.stack([c[:, 0] - b[:, 0], a[:, 0] - c[:, 0]], axis=1) * scale[:, None]
    origin = c[index]
    dx, dy = x - origin[:, 0], y - origin[:, 1]
    first = slope_x[index, 0] * dx + slope_y[index, 0] * dy
    second = slope_x[index, 1] * dx + slope_y[index, 1] * dy
    third = 1.0 - first - second
    # A little slack closes the seams between neighbours that rounding would open.
    inside = (first >= -1e-9) & (second >= -1e-9) & (third >= -1e-9) & (scale[index] != 0)
    return inside, np.stack([first, second, third], axis=1)[inside]
