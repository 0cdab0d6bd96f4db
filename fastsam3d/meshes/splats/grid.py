"""Finds all balls that may hold a point, for many points at once, by the cells of a grid."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fastsam3d.meshes.splats.compositing import expand

_BITS = 20
"""Bits of a cell's number along an axis: a grid has at most about a million cells a side."""
_AROUND = [(x << (2 * _BITS)) + (y << _BITS) + z for x in (-1, 0, 1) for y in (-1, 0, 1) for z in (-1, 0, 1)]
"""Differences of the numbers of neighbouring cells. Cells at the rim hold nothing, so that none is counted twice."""


@dataclass(frozen=True)
class GridLevel:
    """The lists of balls of similar radius, by the cells that the points lie in.

    Attributes:
        begin, length: where the list of each point begins in `members`, and how long it is, `[P]` each.
        members: indices of balls.
    """

    begin: Tensor
    length: Tensor
    members: Tensor


def make_levels(centers: Tensor, radii: Tensor, points: Tensor) -> list[GridLevel]:
    """Lists the balls near points, in one grid for each power of two of their radii.

    Args:
        centers, radii: of the balls, `[G, 3]` and `[G]`, radii above 0.
        points: `[P, 3]`. The lists of a point together hold every ball that the point lies in, and others near it.
    """
    if not len(centers) or not len(points):
        return []
    octave = torch.log2(radii).ceil().long()
    return [
        _make_level(centers, radii, points, torch.nonzero(octave == power).flatten())
        for power in torch.unique(octave).tolist()
    ]


def _make_level(centers: Tensor, radii: Tensor, points: Tensor, balls: Tensor) -> GridLevel:
    centers, radii = centers[balls], radii[balls]
    largest = float(radii.max())
    low = torch.minimum(centers.amin(dim=0), points.amin(dim=0))
    high = torch.maximum(centers.amax(dim=0), points.amax(dim=0))
    # A cell is as wide as the largest radius: a point's balls have their centres in its cell or beside it.
    cell = max(1.0001 * largest, float((high - low).max()) / (2**_BITS - 8))
    ball_key, order = torch.sort(_cell_keys(centers, low, cell))
    held, held_counts = torch.unique_consecutive(ball_key, return_counts=True)
    held_starts = torch.cumsum(held_counts, 0) - held_counts
    asked, own = torch.unique(_cell_keys(points, low, cell), return_inverse=True)
    box_low = points.new_full((len(asked), 3), torch.inf)
    box_high = points.new_full((len(asked), 3), -torch.inf)
    rows = own[:, None].expand(-1, 3)
    box_low.scatter_reduce_(0, rows, points, "amin")
    box_high.scatter_reduce_(0, rows, points, "amax")

    wanted = (asked[:, None] + torch.tensor(_AROUND, device=asked.device)).flatten()
    place = torch.searchsorted(held, wanted).clamp(max=len(held) - 1)
    found = torch.nonzero(held[place] == wanted).flatten()
    place, asker = place[found], found // len(_AROUND)
    entry, number = expand(held_counts[place])
    ball, asker = order[held_starts[place][entry] + number], asker[entry]
    # Of these, the balls that reach the box of the cell's points.
    center = centers[ball]
    gap = (box_low[asker] - center).clamp(min=0) + (center - box_high[asker]).clamp(min=0)
    kept = torch.nonzero((gap * gap).sum(dim=1) <= radii[ball] ** 2 * 1.0001).flatten()
    counts = torch.bincount(asker[kept], minlength=len(asked))
    begin = torch.cumsum(counts, 0) - counts
    return GridLevel(begin[own], counts[own], balls[ball[kept]])


def _cell_keys(points: Tensor, low: Tensor, cell: float) -> Tensor:
    """The number of each point's cell `[P]`; no cell is at the grid's rim."""
    x, y, z = (((points - low) / cell).floor().long() + 2).unbind(dim=1)
    return (x << (2 * _BITS)) | (y << _BITS) | z
