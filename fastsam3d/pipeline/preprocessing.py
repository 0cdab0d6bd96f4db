"""From a photograph, a mask and an optional point map to the inputs of the condition embedders.

SAM 3D Objects architecture, section 2. Everything is plain tensor code; nothing here knows a network.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fastsam3d.errors import UserError

ConditionInputs = dict[str, Tensor]
"""Inputs of the condition embedders by keyword, and the moments that normalised the point map.

`image`, `rgb_image` `[1, 3, S, S]` in 0..1 · `mask`, `rgb_image_mask` `[1, 1, S, S]` · `pointmap`,
`rgb_pointmap` `[1, 3, S, S]`, normalised, NaN where unknown · `pointmap_scale`, `pointmap_shift` `[1, 3]`.
Keys without a prefix are the crop around the object, keys with `rgb_` the full frame.
"""

BOX_SIZE_FACTOR = 1.2
"""Side of the crop relative to the longer side of the mask's bounding box."""
MINIMUM_EXTENT = 2
"""Smallest width and height, in pixels between the outermost mask pixels, that can be reconstructed."""
ASSUMED_FIELD_OF_VIEW = 60.0
"""Horizontal field of view, in degrees, of the camera that is assumed where there is no point map."""
ASPECT_TOLERANCE = 0.02


def as_image(image: Any) -> np.ndarray:
    """Checks an image and returns it as uint8 `[H, W, 3]`.

    Grey images are repeated over the channels; an alpha channel is dropped.

    Raises:
        UserError: not an 8-bit image with 1, 3 or 4 channels.
    """
    array = np.asarray(image)
    if array.ndim == 2:
        array = np.repeat(array[..., None], 3, axis=2)
    if array.ndim != 3 or array.shape[2] not in (3, 4) or array.dtype != np.uint8 or 0 in array.shape:
        raise UserError(
            f"The image is an array of shape {array.shape} and type {array.dtype}; "
            "expected uint8 with shape (height, width, 3)."
        )
    return np.ascontiguousarray(array[..., :3])


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


def as_pointmap(pointmap: Any, height: int, width: int) -> Tensor:
    """Checks a point map and returns it as fp32 `[3, H, W]` at the image's size, NaN where unknown.

    A map of another size but the same aspect ratio is resized to the image (nearest).

    Raises:
        UserError: not `(height, width, 3)`, or another aspect ratio than the image.
    """
    points = torch.as_tensor(np.array(pointmap, dtype=np.float32))
    if points.ndim != 3 or points.shape[2] != 3 or 0 in points.shape:
        raise UserError(f"The point map has shape {tuple(points.shape)}; expected (height, width, 3).")
    rows, columns = points.shape[:2]
    if abs(math.log((columns / rows) / (width / height))) > ASPECT_TOLERANCE:
        raise UserError(
            f"The point map is {columns} x {rows}, the image {width} x {height}: different aspect ratios. "
            "Compute the point map from the same image."
        )
    points = points.movedim(-1, 0)
    points = torch.where(torch.isfinite(points).all(dim=0, keepdim=True), points, torch.nan)
    return points if (rows, columns) == (height, width) else _resize(points, (height, width), "nearest")


def crop_box(mask: Tensor, factor: float = BOX_SIZE_FACTOR) -> tuple[int, int, int, int]:
    """Square crop around a mask: (left, top, right, bottom) in pixels, right and bottom exclusive.

    The box may reach beyond the image, and is one pixel off square where its centre lies between two pixels.

    Args:
        mask: bool `[H, W]`, not empty.

    Raises:
        UserError: the object is narrower or lower than three pixels.
    """
    columns = torch.nonzero(mask.any(dim=0)).flatten()
    rows = torch.nonzero(mask.any(dim=1)).flatten()
    left, right = int(columns[0]), int(columns[-1])
    top, bottom = int(rows[0]), int(rows[-1])
    if right - left < MINIMUM_EXTENT or bottom - top < MINIMUM_EXTENT:
        raise UserError(
            f"The mask covers only {right - left + 1} x {bottom - top + 1} pixels at column {left}, "
            f"row {top}; an object needs at least 3 x 3. Use a larger image or another mask."
        )
    half = int(max(right - left, bottom - top) * factor) // 2
    x, y = (left + right) / 2, (top + bottom) / 2
    return int(x - half), int(y - half), int(x + half), int(y + half)


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


def _resize(x: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    if x.shape[-2:] == size:
        return x
    # Without the low-pass filter a photograph shrunk tenfold would keep one pixel in a hundred.
    options: dict[str, Any] = {"antialias": True, "align_corners": False} if mode == "bilinear" else {}
    return F.interpolate(x[None].float(), size, mode=mode, **options)[0]


def to_condition_size(x: Tensor, size: int, mode: str) -> Tensor:
    """Pads `[C, H, W]` with zeros to a square and resizes it to `size`.

    `mode` is `bilinear` (images; antialiased) or `nearest` (masks and point maps, whose values must not mix).
    """
    return _resize(pad_to_square(x), (size, size), mode)


def object_moments(pointmap: Tensor, mask: Tensor, scale_over: str = "all") -> tuple[Tensor, Tensor]:
    """Moments that put an object at the origin and its scene at unit size (`ObjectCentricSSI`).

    Args:
        pointmap: `[3, H, W]` camera-space points, NaN where unknown.
        mask: bool `[H, W]`.
        scale_over: whose points give the scale, `all` (official) or `mask`. With `mask` the result does not
            depend on how much of the scene the picture shows.

    Returns:
        (scale, shift), each `[3]`: shift is the median of the mask's points per axis, scale the median over
        points of their largest absolute coordinate about it, three times. (1, 0) where no point of the mask
        is known. Medians of an even count take the lower value.
    """
    if scale_over not in ("all", "mask"):
        raise ValueError(f"scale_over must be 'all' or 'mask', not {scale_over!r}")
    points = pointmap.flatten(1)
    points_of_object = points[:, mask.flatten()]
    shift = torch.nanmedian(points_of_object, dim=1).values
    if not torch.isfinite(shift).all():
        return torch.ones(3), torch.zeros(3)
    chosen = points if scale_over == "all" else points_of_object
    scale = torch.nanmedian((chosen - shift[:, None]).abs().amax(dim=0))
    return scale.clamp_min(1e-6).expand(3).clone(), shift


def fronto_parallel_points(height: int, width: int, field_of_view: float = ASSUMED_FIELD_OF_VIEW) -> Tensor:
    """Points where the pixels' rays meet the plane at depth 1: `[3, H, W]`, x left, y up, z forward.

    Args:
        field_of_view: horizontal, in degrees, of a pinhole camera with square pixels and a central axis.
    """
    focal = width / 2 / math.tan(math.radians(field_of_view) / 2)
    x = -(torch.arange(width) + 0.5 - width / 2) / focal
    y = -(torch.arange(height) + 0.5 - height / 2) / focal
    return torch.stack([x.expand(height, width), y[:, None].expand(height, width), torch.ones(height, width)])


def prepare_condition(
    image: Any, mask: Any, pointmap: Any = None, *, image_size: int = 518, scale_over: str = "all"
) -> ConditionInputs:
    """Inputs of the condition embedders for one object of one picture.

    Without a point map the networks see an unknown one (all NaN), and the moments that place the object come
    from its pixels on a plane at unit depth in front of a camera with a horizontal field of view of 60
    degrees. The objects of a picture then stand side by side in that plane, where and as large as the picture
    shows them; how they lie behind each other cannot be told from one mask.

    Args:
        image: uint8 `[H, W, 3]`.
        mask: `[H, W]`, see `as_mask`.
        pointmap: fp32 `[H, W, 3]` in the camera frame (x left, y up, z forward), NaN where unknown.
        image_size: side of the returned images in pixels.
        scale_over: see `object_moments`.

    Raises:
        UserError: an input of the wrong kind or size, or an empty or too small mask.
    """
    pixels = as_image(image)
    height, width = pixels.shape[:2]
    inside = torch.tensor(as_mask(mask, height, width))
    box = crop_box(inside)
    colors = torch.tensor(pixels).movedim(-1, 0).float() / 255
    alpha = inside[None].float()
    known = None if pointmap is None else as_pointmap(pointmap, height, width)
    plane = fronto_parallel_points(height, width) if known is None else known
    scale, shift = object_moments(plane, inside, scale_over)

    inputs = {
        "image": to_condition_size(crop(colors, box), image_size, "bilinear"),
        "mask": to_condition_size(crop(alpha, box), image_size, "nearest"),
        "rgb_image": to_condition_size(colors, image_size, "bilinear"),
        "rgb_image_mask": to_condition_size(alpha, image_size, "nearest"),
    }
    if known is None:
        inputs["pointmap"] = inputs["rgb_pointmap"] = torch.full((3, image_size, image_size), torch.nan)
    else:
        normalised = (known - shift[:, None, None]) / scale[:, None, None]
        # The crop's remainder to a square is unknown; areas outside the picture and letter boxes are zero.
        cropped = pad_to_square(crop(normalised, box), torch.nan)
        inputs["pointmap"] = to_condition_size(cropped, image_size, "nearest")
        inputs["rgb_pointmap"] = to_condition_size(normalised, image_size, "nearest")
    inputs["pointmap_scale"], inputs["pointmap_shift"] = scale, shift
    return {name: value[None] for name, value in inputs.items()}
