"""Case tables of dual marching cubes, derived from the cube's geometry.

A case is the set of inside corners of a cube, one bit a corner. The surface leaves its trace on the cube's
faces: segments that join crossed edges. Where all four edges of a face are crossed the trace is ambiguous;
by default each inside corner is then cut off on its own. Segments close to cycles, and every cycle is one
patch of the surface, hence one dual vertex.

If two neighbouring cubes share an ambiguous face and in both of them the two segments on it belong to a
single patch, four quads would meet in one edge. Both cubes then use the opposite trace on that face, which
is the trace of the complementary case (docs/facts.md, section S8.2).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

CORNERS = ((0, 0, 0), (1, 0, 0), (0, 1, 0), (1, 1, 0), (0, 0, 1), (1, 0, 1), (0, 1, 1), (1, 1, 1))
"""Offsets of a cube's corners, in the order of the decoder's channels."""

EDGES = ((0, 1), (1, 5), (4, 5), (0, 4), (2, 3), (3, 7), (6, 7), (2, 6), (2, 0), (3, 1), (7, 5), (6, 4))
"""Corner pairs of a cube's edges, in the order of the decoder's edge weights."""

AROUND = ((0, 0), (1, 0), (1, 1), (0, 1))
"""Cubes around a grid edge, counted in the two other axes (cyclic order) as seen from the edge's far end:
which of the cube's own two positions (near 0, far 1) the edge takes is one minus these."""


def _faces() -> list[tuple[int, int, list[int]]]:
    """The six faces: axis, side, and their four edges in a ring."""
    faces = []
    for axis in range(3):
        for side in (0, 1):
            on_face = [e for e, pair in enumerate(EDGES) if all(CORNERS[c][axis] == side for c in pair)]
            ring = [on_face[0]]
            while len(ring) < 4:
                ring.append(
                    next(e for e in on_face if e not in ring and set(EDGES[e]) & set(EDGES[ring[-1]]))
                )
            faces.append((axis, side, ring))
    return faces


def _segments(case: int, ring: list[int], separate_inside: bool) -> list[tuple[int, int]]:
    """Pairs of crossed edges that the surface joins on a face."""

    def inside(corner: int) -> bool:
        return bool(case >> corner & 1)

    crossed = [e for e in ring if inside(EDGES[e][0]) != inside(EDGES[e][1])]
    if len(crossed) == 2:
        return [(crossed[0], crossed[1])]
    segments = []
    for a, b in zip(crossed, crossed[1:] + crossed[:1], strict=True):
        (corner,) = set(EDGES[a]) & set(EDGES[b])
        if inside(corner) == separate_inside:
            segments.append((a, b))
    return segments


def _patches(case: int) -> tuple[list[int], tuple[int, int] | None]:
    """Patch of each edge (-1: not crossed), and the face (axis, side) to check against the neighbour."""
    faces = [(axis, side, _segments(case, ring, True)) for axis, side, ring in _faces()]
    patch = list(range(12))
    for _, _, segments in faces:
        for a, b in segments:
            patch = [patch[a] if p == patch[b] else p for p in patch]
    crossed = [bool(case >> a & 1) != bool(case >> b & 1) for a, b in EDGES]
    names = sorted({p for p, used in zip(patch, crossed, strict=True) if used})
    result = [names.index(p) if used else -1 for p, used in zip(patch, crossed, strict=True)]
    ambiguous = [(axis, side, segments) for axis, side, segments in faces if len(segments) == 2]
    check = None
    if len(ambiguous) == 1:
        axis, side, (first, second) = ambiguous[0]
        if result[first[0]] == result[second[0]]:
            check = (axis, side)
    return result, check


@lru_cache(maxsize=1)
def case_tables() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tables of all 256 cases.

    Returns:
        patch of each edge `[256, 12]` int64, -1 where the edge is not crossed;
        number of patches `[256]` int64;
        step to the neighbour that shares the face to be checked `[256, 3]` int64, zero where there is none.
    """
    patch_of_edge = np.full((256, 12), -1, dtype=np.int64)
    check_step = np.zeros((256, 3), dtype=np.int64)
    for case in range(256):
        patch_of_edge[case], check = _patches(case)
        if check is not None:
            check_step[case, check[0]] = 2 * check[1] - 1
    return patch_of_edge, patch_of_edge.max(axis=1) + 1, check_step


@lru_cache(maxsize=1)
def ring_tables() -> tuple[np.ndarray, np.ndarray]:
    """Cubes around a grid edge that points along an axis, in right-handed order about that axis.

    Returns:
        step from the edge's first corner to each cube `[3, 4, 3]` int64 (0 or -1);
        which of the cube's 12 edges the grid edge is `[3, 4]` int64.
    """
    steps = np.zeros((3, 4, 3), dtype=np.int64)
    edges = np.zeros((3, 4), dtype=np.int64)
    for axis in range(3):
        for slot, far in enumerate(AROUND):
            first = [0, 0, 0]
            for other, position in zip(((axis + 1) % 3, (axis + 2) % 3), far, strict=True):
                steps[axis, slot, other] = position - 1
                first[other] = 1 - position
            second = list(first)
            second[axis] = 1
            corners = {CORNERS.index(tuple(first)), CORNERS.index(tuple(second))}
            edges[axis, slot] = next(e for e, pair in enumerate(EDGES) if set(pair) == corners)
    return steps, edges
