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


@dataclass(frozen=True)
class BallLevel:
    """Balls of similar radius, sorted by the cells that their centres lie in.

    Attributes:
        low: corner of the grid `[3]`.
        cell: side of a cell, at least the largest radius: a point's balls have their centres in its cell or beside it.
        side: number of the last cell along each axis `[3]`; it and its neighbours hold nothing.
        held, starts, counts: numbers of the cells that hold balls, ascending; where their balls begin, and how many.
        balls: indices of the balls `[B]`; `centers [B, 3]` and `radii [B]` are in the same order.
    """

    low: Tensor
    cell: float
    side: Tensor
    held: Tensor
    starts: Tensor
    counts: Tensor
    balls: Tensor
    centers: Tensor
    radii: Tensor

    def cells(self, points: Tensor) -> Tensor:
        """Computes the number of the cell of each point `[P]`."""
        place = ((points - self.low) / self.cell).floor() + 2
        # Points far from all balls go to cells at the rim, which have no neighbours that hold something.
        return _keys(torch.minimum(place.clamp(min=0), self.side.to(place)).long())

    def near(self, points: Tensor) -> GridLevel:
        """Lists the balls near points `[P, 3]`."""
        asked, own = torch.unique(self.cells(points), return_inverse=True)
        box_low = points.new_full((len(asked), 3), torch.inf)
        box_high = points.new_full((len(asked), 3), -torch.inf)
        rows = own[:, None].expand(-1, 3)
        box_low.scatter_reduce_(0, rows, points, "amin")
        box_high.scatter_reduce_(0, rows, points, "amax")

        wanted = (asked[:, None] + torch.tensor(_AROUND, device=asked.device)).flatten()
        place = torch.searchsorted(self.held, wanted).clamp(max=len(self.held) - 1)
        found = torch.nonzero(self.held[place] == wanted).flatten()
        place, asker = place[found], found // len(_AROUND)
        entry, number = expand(self.counts[place])
        ball, asker = self.starts[place][entry] + number, asker[entry]
        # Of these, the balls that reach the box of the cell's points.
        center = self.centers[ball]
        gap = (box_low[asker] - center).clamp(min=0) + (center - box_high[asker]).clamp(min=0)
        kept = torch.nonzero((gap * gap).sum(dim=1) <= self.radii[ball] ** 2 * 1.0001).flatten()
        counts = torch.bincount(asker[kept], minlength=len(asked))
        begin = torch.cumsum(counts, 0) - counts
        return GridLevel(begin[own], counts[own], self.balls[ball[kept]])


def ball_levels(centers: Tensor, radii: Tensor) -> list[BallLevel]:
    """Sorts balls into one grid for each power of two of their radii.

    Args:
        centers, radii: of the balls, `[G, 3]` and `[G]`, radii above 0.
    """
    octave = torch.log2(radii).ceil().long()
    return [
        _ball_level(centers, radii, torch.nonzero(octave == power).flatten()) for power in torch.unique(octave).tolist()
    ]


def make_levels(centers: Tensor, radii: Tensor, points: Tensor) -> list[GridLevel]:
    """Lists the balls near points, in one grid for each power of two of their radii.

    Args:
        centers, radii: of the balls, `[G, 3]` and `[G]`, radii above 0.
        points: `[P, 3]`. The lists of a point together hold every ball that the point lies in, and others near it.
    """
    return [level.near(points) for level in ball_levels(centers, radii)] if len(points) else []


def _ball_level(centers: Tensor, radii: Tensor, balls: Tensor) -> BallLevel:
    centers, radii = centers[balls], radii[balls]
    low, extent = centers.amin(dim=0), float((centers.amax(dim=0) - centers.amin(dim=0)).max())
    cell = max(1.0001 * float(radii.max()), extent / (2**_BITS - 8))
    cells = ((centers - low) / cell).floor().long() + 2
    key, order = torch.sort(_keys(cells))
    held, counts = torch.unique_consecutive(key, return_counts=True)
    side = cells.amax(dim=0) + 2
    starts = torch.cumsum(counts, 0) - counts
    return BallLevel(low, cell, side, held, starts, counts, balls[order], centers[order], radii[order])


def _keys(cells: Tensor) -> Tensor:
    """One number for each cell `[P, 3]`."""
    x, y, z = cells.unbind(dim=1)
    return (x << (2 * _BITS)) | (y << _BITS) | z
