"""Checks pictures and masks that callers hand in, and turns them into arrays."""

from __future__ import annotations

import logging
import operator
from typing import Any

import numpy as np

from fastsam3d.errors import UserError

logger = logging.getLogger(__name__)

ASSUMED_FIELD_OF_VIEW = 60.0
"""Horizontal field of view, in degrees, of the camera that is assumed if there is no point map."""


SEEDS = 2**32
"""Seeds are below this: the generator of random numbers takes 32 bits, so larger ones would repeat others."""
SPECK_SHARE, DOUBTFUL_SHARE = 1e-3, 1e-2
"""Largest shares of a mask's pixels for a separate part: of a speck, and of a part that a message names."""
SPECK_PIXELS = 4
"""A part of so few pixels is a speck, too, if the mask has at least a hundred pixels."""
SPECK_DISTANCE = 0.05
"""Smallest distance of a speck, as a share of the extent of the other parts: nearer parts belong to the object."""


def as_seed(seed: Any) -> int:
    """Checks a seed. Whole numbers of any kind are accepted, also of NumPy and PyTorch.

    Raises:
        UserError: it is not a whole number from 0 to 2**32 - 1.
    """
    try:
        value = -1 if isinstance(seed, (bool, np.bool_)) else operator.index(seed)
    except TypeError:
        value = -1
    if not 0 <= value < SEEDS:
        raise UserError(f"seed is {seed}: a whole number from 0 to {SEEDS - 1} is needed.")
    return value


def as_array(value: Any) -> np.ndarray:
    """Converts a value to an array. A tensor may be on a device, need gradients, or have a type that NumPy lacks."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        try:
            return np.asarray(value.numpy())
        except TypeError:  # for instance bfloat16
            return np.asarray(value.float().numpy())
    return np.asarray(value)


def inside_of(values: np.ndarray) -> np.ndarray:
    """Converts a mask of numbers to bool of the same shape: true is the object.

    Numbers above half of the largest are the object. If there are negative numbers, such as scores of a network or -1
    for the background, numbers above zero are the object. NaN is background.
    """
    if values.dtype == np.bool_:
        return values
    known = np.where(np.isnan(values), 0, values) if values.dtype.kind == "f" else values
    finite = known[np.isfinite(known)] if values.dtype.kind == "f" else known
    if finite.size == 0 or known.min() < 0:
        return known > 0
    return known > finite.max() / 2 if finite.max() > 0 else known > 0


def far_specks(inside: np.ndarray) -> tuple[np.ndarray, list[int], list[int]]:
    """Removes the parts of a mask that are far from the rest and too small to be the object.

    Only specks that make the bounding box larger are removed: other specks do no harm.

    Args:
        inside: bool `[H, W]`.

    Returns:
        (the mask without specks, the sizes of the specks in pixels, the sizes of larger parts that lie apart and stay).
    """
    kept, specks, doubtful = inside, [], []
    for _ in range(16):  # specks may be separate along rows or columns, and there may be several on one side
        found = False
        for axis in (0, 1):
            for part, size, share in _outer_parts(kept, axis):
                if share <= SPECK_SHARE or (size <= SPECK_PIXELS and kept.sum() >= 100):
                    kept = kept.copy() if kept is inside else kept
                    kept[part] = False
                    specks.append(size)
                    found = True
                elif share <= DOUBTFUL_SHARE and size not in doubtful:
                    doubtful.append(size)
        if not found:
            break
    return kept, specks, doubtful


def _outer_parts(inside: np.ndarray, axis: int) -> list[tuple[Any, int, float]]:
    """Returns the first and the last part between empty rows (axis 0) or columns (1): (where, pixels, share)."""
    counts = inside.sum(axis=1 - axis)
    lines = np.flatnonzero(counts)
    if len(lines) == 0:
        return []
    breaks = np.flatnonzero(np.diff(lines) > 1)
    parts = []
    for last, first in [(breaks[0], breaks[0] + 1)] if len(breaks) else []:
        parts.append((slice(0, lines[last] + 1), lines[first] - lines[last], lines[-1] - lines[first]))
    for last, first in [(breaks[-1], breaks[-1] + 1)] if len(breaks) else []:
        parts.append((slice(lines[first], None), lines[first] - lines[last], lines[last] - lines[0]))
    found = []
    for lines_of_part, gap, extent in parts:
        if gap > max(2, SPECK_DISTANCE * extent):
            size = int(counts[lines_of_part].sum())
            where = lines_of_part if axis == 0 else (slice(None), lines_of_part)
            found.append((where, size, size / max(1, int(counts.sum()))))
    return found


def as_image(image: Any) -> np.ndarray:
    """Checks an image and returns it as uint8 `[H, W, 3]`.

    Grey images are repeated over the channels; an alpha channel is dropped. A picture of Pillow may have any mode, and
    its colour profile is applied, as on the command line.

    Raises:
        UserError: not an 8-bit image with 1, 3 or 4 channels.
    """
    array = _pillow_pixels(image) if hasattr(image, "getbands") else as_array(image)
    if array.ndim == 2:
        array = np.repeat(array[..., None], 3, axis=2)
    if array.ndim != 3 or array.shape[2] not in (3, 4) or array.dtype != np.uint8 or 0 in array.shape:
        raise UserError(
            f"The image is an array of shape {array.shape} and type {array.dtype}; "
            "expected uint8 with shape (height, width, 3)."
        )
    return np.ascontiguousarray(array[..., :3])


def _pillow_pixels(image: Any) -> np.ndarray:
    from fastsam3d.basics.picture_files import rgb_pixels

    pixels, doubts = rgb_pixels(image)
    for text in doubts:
        logger.warning("the picture %s", text)
    return pixels


def as_mask(mask: Any, height: int, width: int) -> np.ndarray:
    """Checks a mask and returns it as bool `[H, W]`.

    Booleans are used as they are. `inside_of` converts numbers: 0/1, 0/255, soft masks or scores.

    Raises:
        UserError: not two-dimensional, not the size of the image, or empty.
    """
    array = as_array(mask)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim != 2:
        raise UserError(f"The mask is an array of shape {array.shape}; expected (height, width).")
    if array.shape != (height, width):
        raise UserError(
            f"The mask is {array.shape[1]} x {array.shape[0]} pixels, the image {width} x {height}; "
            "make the mask from the same picture."
        )
    array = inside_of(array)
    if not array.any():
        raise UserError("The mask is empty: no pixel belongs to the object. Choose another mask.")
    return array
