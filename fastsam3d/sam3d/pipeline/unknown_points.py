"""What a point map does not know: which of its points are none, and where an object is that it does not see."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fastsam3d.basics.pixels import ASSUMED_FIELD_OF_VIEW

FAR = 1e5
"""Depths above this many times the smallest ones (their first percentile) stand for "nothing there"."""


def known_points(points: Tensor) -> Tensor:
    """Returns the points `[H, W, 3]` with NaN for all that are unknown; the same tensor if nothing changes.

    Unknown are points that are not finite in a coordinate, that do not lie in front of the camera (depth cameras store
    zeros where they see nothing, others a negative depth), and that are further away than anything can be (`FAR`).
    """
    depth = points[..., 2]
    known = torch.isfinite(points).all(dim=2) & (depth > 0)
    if bool(known.any()):
        depths = depth[known]
        if depths.max() > FAR * depths.min():
            near = depths.kthvalue(1 + len(depths) // 100).values
            known &= depth <= FAR * near
    outdated = ~known & ~torch.isnan(points).all(dim=2)
    return points.masked_fill(outdated[..., None], torch.nan) if bool(outdated.any()) else points


def missing_depth(points: Tensor, inside: Tensor) -> str | None:
    """Says that no depth is known on an object, as of glass and metal; None where some is.

    Args:
        points: `[H, W, 3]`, not finite where unknown.
        inside: the object's mask, bool `[H, W]`.
    """
    if bool(torch.isfinite(points[inside]).all(dim=1).any()):
        return None
    row, column = (int(line[0]) for line in inside.nonzero(as_tuple=True))
    return (
        f"the point map knows no depth on the object at column {column}, row {row}: it is placed as if it were flat, "
        "at the depth of what is around it."
    )


def flat_guess(points: Tensor, inside: Tensor, box: tuple[int, int, int, int]) -> Tensor:
    """Guesses points `[N, 3]` of an object without known depth, on a plane that faces the camera.

    The plane is at the median depth of what is known around the object (its crop), else in the whole picture. The
    camera is the one that fits the known points best.

    Args:
        points: `[H, W, 3]`, with a known point.
        inside: the object's mask, bool `[H, W]`.
        box: the object's crop, see `preprocessing.crop_box`.
    """
    height, width = inside.shape
    left, top, right, bottom = box
    around = points[max(0, top) : max(0, bottom), max(0, left) : max(0, right)].flatten(0, 1)
    known = torch.isfinite(points).all(dim=2)
    around = around[torch.isfinite(around).all(dim=1)]
    depth = (around if len(around) else points[known])[:, 2].median()
    u = (torch.arange(width) + 0.5 - width / 2).expand(height, width)
    v = (torch.arange(height) + 0.5 - height / 2)[:, None].expand(height, width)
    x, y = (-points[known][:, axis] / points[known][:, 2] for axis in (0, 1))
    # Least squares for the slope of a ray from one pixel to the next: 1 / focal length.
    slope = float((x * u[known] + y * v[known]).sum() / (u[known] ** 2 + v[known] ** 2).sum())
    if not slope > 0:
        slope = 2 * math.tan(math.radians(ASSUMED_FIELD_OF_VIEW) / 2) / width
    return torch.stack([-u[inside] * slope, -v[inside] * slope, torch.ones(int(inside.sum()))], dim=1) * depth
