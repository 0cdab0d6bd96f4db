"""Checks pictures and masks that callers hand in, and turns them into arrays."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from fastsam3d.errors import UserError

logger = logging.getLogger(__name__)

ASSUMED_FIELD_OF_VIEW = 60.0
"""Horizontal field of view, in degrees, of the camera that is assumed where there is no point map."""


def as_image(image: Any) -> np.ndarray:
    """Checks an image and returns it as uint8 `[H, W, 3]`.

    Grey images are repeated over the channels; an alpha channel is dropped. A picture of Pillow may have any mode, and
    its colour profile is followed, as on the command line.

    Raises:
        UserError: not an 8-bit image with 1, 3 or 4 channels.
    """
    array = _pillow_pixels(image) if hasattr(image, "getbands") else np.asarray(image)
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

    Booleans are taken as they are. Of numbers, those above half of the mask's largest value belong to the
    object, so that 0/1, 0/255 and soft masks all mean what they show.

    Raises:
        UserError: not two-dimensional, not the size of the image, or empty.
    """
    array = np.asarray(mask)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim != 2:
        raise UserError(f"The mask is an array of shape {array.shape}; expected (height, width).")
    if array.shape != (height, width):
        raise UserError(
            f"The mask is {array.shape[1]} x {array.shape[0]} pixels, the image {width} x {height}; "
            "resize the mask to the image (nearest neighbour)."
        )
    if array.dtype != np.bool_:
        array = np.nan_to_num(array.astype(np.float64))
        array = array > array.max() / 2 if array.max() > 0 else np.zeros(array.shape, dtype=bool)
    if not array.any():
        raise UserError("The mask is empty: no pixel belongs to the object. Choose another mask.")
    return array
