"""Cutting, padding and resizing of pictures and maps, as the networks' training did it.

docs/facts.md, section S2.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def crop(x: Tensor, box: tuple[int, int, int, int]) -> Tensor:
    """Cuts `box` out of `[C, H, W]`; what lies outside the image becomes 0, in point maps too."""
    left, top, right, bottom = box
    height, width = x.shape[-2:]
    inside = x[..., max(top, 0) : min(bottom, height), max(left, 0) : min(right, width)]
    return F.pad(inside, (max(-left, 0), max(right - width, 0), max(-top, 0), max(bottom - height, 0)))


def pad_to_square(x: Tensor, value: float = 0.0) -> Tensor:
    """Pads the shorter side of `[C, H, W]` on both ends; an odd pixel goes to the right or the bottom."""
    height, width = x.shape[-2:]
    size = max(height, width)
    left, top = (size - width) // 2, (size - height) // 2
    return F.pad(x, (left, size - width - left, top, size - height - top), value=value)


def square_box(height: int, width: int) -> tuple[int, int, int, int]:
    """Returns the box (left, top, right, bottom) with which `crop` does the same as `pad_to_square`."""
    size = max(height, width)
    left, top = -((size - width) // 2), -((size - height) // 2)
    return left, top, left + size, top + size


def resize_image(pixels: Tensor, box: tuple[int, int, int, int], size: int) -> Tensor:
    """Pads a box of an image with black to a square and resizes it with bilinear weights.

    Args:
        pixels: uint8 `[H, W, 3]`.

    Returns:
        fp32 `[3, size, size]` in 0..1.
    """
    planes = []
    # Channel by channel: a large photograph is never held as floats as a whole.
    for plane in pixels.unbind(dim=-1):
        square = pad_to_square(crop(plane[None], box)).float()[None]
        # Without the low-pass filter a photograph shrunk tenfold would keep one pixel in a hundred.
        planes.append(F.interpolate(square, (size, size), mode="bilinear", antialias=True)[0] / 255)
    return torch.cat(planes)


def nearest_indices(length: int, size: int) -> Tensor:
    """Returns the source positions of nearest-neighbour resizing from `length` to `size`, as PyTorch chooses them."""
    positions = torch.arange(size, dtype=torch.float32) * torch.tensor(length / size, dtype=torch.float32)
    return positions.floor().long().clamp_max(length - 1)


def resize_nearest(
    values: Tensor, box: tuple[int, int, int, int], size: int, unknown: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Pads a box of a map to a square and resizes it without mixing values; only the result is computed.

    Args:
        values: `[H, W, C]`.
        unknown: value of the padding of a box that is not square.

    Returns:
        (`[C, size, size]`, bool `[size, size]`): the second is true where the box reaches beyond the map; the
        values there are to be replaced.
    """
    left, top, right, bottom = box
    side = max(right - left, bottom - top)
    picked = nearest_indices(side, size)
    column, row = picked - (side - right + left) // 2, picked - (side - bottom + top) // 2
    in_box = ((row >= 0) & (row < bottom - top))[:, None] & ((column >= 0) & (column < right - left))
    row, column = row + top, column + left
    height, width = values.shape[:2]
    in_map = ((row >= 0) & (row < height))[:, None] & ((column >= 0) & (column < width))
    chosen = values[row.clamp(0, height - 1)][:, column.clamp(0, width - 1)].movedim(-1, 0)
    return torch.where(in_box, chosen, unknown), in_box & ~in_map
