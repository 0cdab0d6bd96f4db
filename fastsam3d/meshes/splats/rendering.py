"""Draws Gaussians from a camera on any device: the projection of Zwicker et al. 2001, blended front to back.

Every projected Gaussian is widened by a part of a pixel and made fainter for it (Yu et al. 2024, "Mip-Splatting",
section 4.2), so that small ones neither fall between pixels nor make the object larger.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from fastsam3d.meshes.splats.compositing import LEAST_OPAQUE, MOST_OPAQUE, composite, expand
from fastsam3d.meshes.splats.splats import REACH, Splats
from fastsam3d.meshes.viewpoint import camera_of, shown_radius, view_rotation

SMOOTHING = 0.3
"""Variance in square pixels that every projected Gaussian is widened by."""
PAIRS, PAIRS_ON_GPU = 250_000, 4_000_000
"""Pixels that Gaussians cover, of one strip of rows: bounds the memory, and on a CPU they fit into its cache."""
NEAREST = 0.01
"""Gaussians nearer to the camera than this share of the distance to the centre are not drawn."""


@torch.no_grad()
def render_splats(
    splats: Splats, rotation: Tensor, centre: Tensor, distance: float, focal: float, size: int
) -> tuple[Tensor, Tensor]:
    """Draws a square picture.

    Args:
        splats: the Gaussians.
        rotation: the camera's axes as rows, right, up, towards the viewer, `[3, 3]`.
        centre: the point in the middle of the picture `[3]`.
        distance: of the camera from it; infinite for a picture without perspective, where `focal` is pixels a unit.
        focal: in pixels.
        size: side of the picture in pixels.

    Returns:
        (colours on black `[size, size, 3]` sRGB, opacity `[size, size]`).
    """
    flat = math.isinf(distance)
    view = (splats.centers - centre) @ rotation.T
    depth = -view[:, 2] if flat else distance - view[:, 2]
    drawn = torch.ones_like(depth, dtype=torch.bool) if flat else depth > NEAREST * distance
    drawn &= splats.opacities >= LEAST_OPAQUE
    splats, view, depth = splats.select(drawn), view[drawn], depth[drawn]
    zoom = torch.full_like(depth, focal) if flat else focal / depth
    x, y = view[:, 0] * zoom + size / 2, -view[:, 1] * zoom + size / 2
    # Rows of the Jacobian of (x, y) in the viewer's frame, times the Gaussians' axes in standard deviations.
    slope = torch.zeros_like(depth) if flat else zoom / depth
    zero = torch.zeros_like(depth)
    jacobian = torch.stack(
        [torch.stack([zoom, zero, view[:, 0] * slope], 1), torch.stack([zero, -zoom, -view[:, 1] * slope], 1)], 1
    )
    scaled = splats.axes * splats.deviations[:, :, None]
    spread = jacobian @ rotation @ scaled.transpose(1, 2)
    covariance = spread @ spread.transpose(1, 2)
    xx, xy, yy = covariance[:, 0, 0], covariance[:, 0, 1], covariance[:, 1, 1]
    area = (xx * yy - xy * xy).clamp(min=0)
    xx, yy = xx + SMOOTHING, yy + SMOOTHING
    determinant = xx * yy - xy * xy
    # What is spread over more pixels is fainter in each.
    faded = splats.opacities * (area / determinant).sqrt()
    low_x, high_x = _span(x, REACH * xx.sqrt(), size)
    low_y, high_y = _span(y, REACH * yy.sqrt(), size)
    drawn = (high_x > low_x) & (high_y > low_y) & (determinant > 0) & (faded >= LEAST_OPAQUE)
    order = torch.argsort(depth[drawn])
    rows = torch.nonzero(drawn).flatten()[order]
    # One column for each number: rows of several are slow to gather.
    columns = (yy / determinant, xy / determinant, xx / determinant, x, y, faded)
    a, b, c, x, y, opacity = (column.index_select(0, rows) for column in columns)
    left, right, top_row, bottom_row = (edge.index_select(0, rows) for edge in (low_x, high_x, low_y, high_y))
    tint = splats.colors.index_select(0, rows)
    picture, cover = tint.new_zeros(size * size, 3), tint.new_zeros(size * size)
    for top, bottom in _strips(right - left, top_row, bottom_row, size):
        inside = torch.nonzero((top_row < bottom) & (bottom_row > top)).flatten()
        first = top_row.index_select(0, inside).clamp(min=top)
        height = bottom_row.index_select(0, inside).clamp(max=bottom) - first
        start, width = left.index_select(0, inside), (right - left).index_select(0, inside)
        entry, number = expand(width * height)
        across = width.index_select(0, entry)
        down = number // across
        column = start.index_select(0, entry) + number - down * across
        row = first.index_select(0, entry) + down
        chosen = inside.index_select(0, entry)
        dx, dy = column + 0.5 - x.index_select(0, chosen), row + 0.5 - y.index_select(0, chosen)
        square = a.index_select(0, chosen) * dx * dx + c.index_select(0, chosen) * dy * dy
        square -= 2 * b.index_select(0, chosen) * dx * dy
        alpha = (opacity.index_select(0, chosen) * torch.exp(-0.5 * square)).clamp_(max=MOST_OPAQUE)
        seen = torch.nonzero((square <= REACH**2) & (alpha >= LEAST_OPAQUE)).flatten()
        pixel = ((row - top) * size + column).index_select(0, seen)
        # The Gaussians are in the order of their depth already, so that a stable sort by pixel is enough.
        pixel, turn = torch.sort(pixel, stable=True)
        seen = seen.index_select(0, turn)
        values = tint.index_select(0, chosen.index_select(0, seen))
        sums, weight = composite(pixel, alpha.index_select(0, seen), values, (bottom - top) * size)
        picture[top * size : bottom * size], cover[top * size : bottom * size] = sums, weight
    return picture.reshape(size, size, 3), cover.reshape(size, size)


def _span(middle: Tensor, reach: Tensor, size: int) -> tuple[Tensor, Tensor]:
    low = torch.ceil(middle - reach - 0.5).clamp(0, size).long()
    return low, (torch.floor(middle + reach - 0.5) + 1).clamp(0, size).long()


def _strips(width: Tensor, top: Tensor, bottom: Tensor, size: int) -> list[tuple[int, int]]:
    """Rows from top to bottom, in strips of about `PAIRS` covered pixels."""
    covered = torch.zeros(size + 1, dtype=torch.float64, device=width.device)
    wide = width.double()
    covered.index_add_(0, top, wide).index_add_(0, bottom, -wide)
    limit = PAIRS if width.device.type == "cpu" else PAIRS_ON_GPU
    ends = torch.cumsum(torch.cumsum(covered, 0)[:size], 0).tolist()
    strips, first, done = [], 0, 0.0
    for row in range(size):
        if row + 1 == size or ends[row + 1] - done > limit:
            strips.append((first, row + 1))
            first, done = row + 1, ends[row]
    return strips


def splat_view(
    splats: Splats, azimuth: float = 30.0, elevation: float = 20.0, size: int = 320, background: float = 1.0
) -> np.ndarray:
    """Draws one view with the camera of the previews; returns `[size, size, 3]` uint8.

    Args:
        splats: at least one. All centres fit into the view.
        azimuth, elevation: degrees, as in `viewpoint.view_rotation`.
        background: grey, 0..1.
    """
    rotation = torch.from_numpy(view_rotation(azimuth, elevation)).to(splats.centers)
    low, high = splats.centers.amin(dim=0), splats.centers.amax(dim=0)
    centre = (low + high) / 2
    radius = shown_radius(float((splats.centers - centre).norm(dim=1).max()))
    picture, cover = render_splats(splats, rotation, centre, *camera_of(radius, size), size)
    shown = picture + background * (1 - cover[..., None])
    return (shown.clamp(0, 1) * 255).round().byte().cpu().numpy()
