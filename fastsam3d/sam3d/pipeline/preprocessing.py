"""Turns a photograph, a mask and an optional point map into the inputs of the condition embedders.

docs/facts.md, section S2. Everything is plain tensor code; nothing here knows a network.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastsam3d.basics.pixels import ASSUMED_FIELD_OF_VIEW, as_array, as_image, as_mask, far_specks
from fastsam3d.errors import UserError
from fastsam3d.sam3d.pipeline.resizing import nearest_indices, resize_image, resize_nearest, square_box
from fastsam3d.sam3d.pipeline.unknown_points import flat_guess, known_points, missing_depth

logger = logging.getLogger(__name__)

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
ASPECT_TOLERANCE = 0.02


def as_pointmap(pointmap: Any, height: int, width: int) -> Tensor:
    """Checks a point map and returns it as fp32 `[H, W, 3]` at the image's size.

    A map of another size but the same aspect ratio is resized to the image (nearest). See `known_points` for what is
    unknown in it.

    Raises:
        UserError: not `(height, width, 3)`, or another aspect ratio than the image.
    """
    points = torch.from_numpy(np.require(as_array(pointmap), dtype=np.float32, requirements=["C", "W"]))
    if points.ndim != 3 or points.shape[2] != 3 or 0 in points.shape:
        raise UserError(f"The point map has shape {tuple(points.shape)}; expected (height, width, 3).")
    rows, columns = points.shape[:2]
    if abs(math.log((columns / rows) / (width / height))) > ASPECT_TOLERANCE:
        raise UserError(
            f"The point map is {columns} x {rows}, the image {width} x {height}: different aspect ratios. "
            "Compute the point map from the same image."
        )
    points = known_points(points)
    if (rows, columns) == (height, width):
        return points
    return points[nearest_indices(rows, height)][:, nearest_indices(columns, width)]


def crop_box(mask: Tensor, factor: float = BOX_SIZE_FACTOR) -> tuple[int, int, int, int]:
    """Finds the square crop around a mask: (left, top, right, bottom) in pixels, right and bottom exclusive.

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


def object_moments(of_object: Tensor, of_scene: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Computes moments that put an object at the origin and its scene at unit size (`ObjectCentricSSI`).

    Args:
        of_object: `[N, 3]` camera-space points of the object, not finite where unknown.
        of_scene: `[M, 3]` points of the whole picture, which give the scale (official); without them the object's
            own do, and the result does not depend on how much of the scene the picture shows.

    Returns:
        (scale, shift), each `[3]`: shift is the median of the object's points per axis, scale the median over
        points of their largest absolute coordinate about it, three times. (1, 0) where no point of the object is
        known. Medians of an even count take the lower value.
    """
    of_object = of_object[torch.isfinite(of_object).all(dim=1)]
    if not len(of_object):
        return torch.ones(3), torch.zeros(3)
    shift = of_object.median(dim=0).values
    distances = ((of_object if of_scene is None else of_scene) - shift).abs().amax(dim=1)
    scale = distances[torch.isfinite(distances)].median()
    return scale.clamp_min(1e-6).expand(3).clone(), shift


def fronto_parallel_rays(
    height: int, width: int, field_of_view: float = ASSUMED_FIELD_OF_VIEW
) -> tuple[Tensor, Tensor]:
    """Finds where the pixels' rays meet the plane at depth 1: x (left) of every column, y (up) of every row.

    Args:
        field_of_view: horizontal, in degrees, of a pinhole camera with square pixels and a central axis.
    """
    focal = width / 2 / math.tan(math.radians(field_of_view) / 2)
    x = -(torch.arange(width) + 0.5 - width / 2) / focal
    y = -(torch.arange(height) + 0.5 - height / 2) / focal
    return x, y


def fronto_parallel_points(mask: Tensor, field_of_view: float = ASSUMED_FIELD_OF_VIEW) -> Tensor:
    """Finds the points of the plane at depth 1 under a mask, bool `[H, W]`: `[N, 3]`, x left, y up, z forward."""
    x, y = fronto_parallel_rays(mask.shape[0], mask.shape[1], field_of_view)
    rows, columns = mask.nonzero(as_tuple=True)
    return torch.stack([x[columns], y[rows], torch.ones(len(rows))], dim=1)


def mean_color(image: Tensor, mask: Tensor) -> Tensor:
    """Computes the mean colour of the masked pixels `[B, 3]`, -1..1: `image [B, 3, S, S]` 0..1, `mask [B, 1, S, S]`."""
    weight = mask.sum(dim=(2, 3)).clamp(min=1e-6)
    return 2 * (image * mask).sum(dim=(2, 3)) / weight - 1


def prepare_condition(
    image: Any, mask: Any, pointmap: Any = None, *, image_size: int = 518, scale_over: str = "all"
) -> ConditionInputs:
    """Makes the inputs of the condition embedders for one object of one picture.

    Without a point map the networks see an unknown one (all NaN), and the moments that place the object come
    from its pixels on a plane at unit depth in front of a camera with a horizontal field of view of 60
    degrees. The objects of a picture then stand side by side in that plane, where and as large as the picture
    shows them; how they lie behind each other cannot be told from one mask.

    Args:
        image: uint8 `[H, W, 3]`, or a `SharedPicture` of the same size, whose point map counts then.
        mask: `[H, W]`, see `as_mask`.
        pointmap: fp32 `[H, W, 3]` in the camera frame (x left, y up, z forward), not finite where unknown.
        image_size: side of the returned images in pixels.
        scale_over: whose points give the scale of the scene, `all` or `mask`, see `object_moments`.

    Raises:
        UserError: an input of the wrong kind or size, or an empty or too small mask.
        ValueError: an unknown `scale_over`.
    """
    if scale_over not in ("all", "mask"):
        raise ValueError(f"scale_over must be 'all' or 'mask', not {scale_over!r}")
    picture = image if isinstance(image, SharedPicture) else share_picture(image, pointmap, image_size=image_size)
    height, width = picture.pixels.shape[:2]
    kept, specks, _ = far_specks(as_mask(mask, height, width))
    if specks:
        sizes = ", ".join(map(str, specks[:4]))
        logger.warning("the mask has specks far from the object, of %s pixels: left out", sizes)
    inside = torch.tensor(kept)
    box, full = crop_box(inside), square_box(height, width)
    if picture.points is None:
        of_object = fronto_parallel_points(inside)
        of_scene = fronto_parallel_points(torch.ones_like(inside)) if scale_over == "all" else None
    else:
        of_object = picture.points[inside]
        if (text := missing_depth(picture.points, inside)) is not None:
            logger.warning("%s", text)
            of_object = flat_guess(picture.points, inside, box)
        of_scene = picture.points.flatten(0, 1) if scale_over == "all" else None
    scale, shift = object_moments(of_object, of_scene)
    alpha, full_alpha = (_resized_mask(inside, b, image_size) for b in (box, full))
    crop_points = None if picture.points is None else resize_nearest(picture.points, box, image_size, unknown=torch.nan)
    return {
        "image": resize_image(picture.pixels, box, image_size)[None],
        "mask": alpha,
        "pointmap": _normalised(crop_points, scale, shift, image_size),
        "rgb_image": picture.full_image,
        "rgb_image_mask": full_alpha,
        "rgb_pointmap": _normalised(picture.full_points, scale, shift, image_size),
        "pointmap_scale": scale[None],
        "pointmap_shift": shift[None],
    }


def object_crop(image: Any, mask: Any, size: int) -> tuple[Tensor, Tensor]:
    """Makes the crop around an object, `[3, S, S]` in 0..1, and its mask, bool `[S, S]`, both on the CPU.

    Args:
        image, mask: as for `prepare_condition`, which has accepted them.
        size: side of the crop in pixels; `prepare_condition` makes the same crop at the networks' size.
    """
    pixels = image.pixels if isinstance(image, SharedPicture) else share_picture(image, image_size=size).pixels
    kept, _, _ = far_specks(as_mask(mask, *pixels.shape[:2]))
    inside = torch.tensor(kept)
    box = crop_box(inside)
    return resize_image(pixels, box, size), _resized_mask(inside, box, size)[0, 0] > 0.5


@dataclass(frozen=True)
class SharedPicture:
    """Prepared data that all objects of one picture share. It takes the place of the image wherever one is expected.

    Attributes:
        pixels: uint8 `[H, W, 3]`.
        points: fp32 `[H, W, 3]` at the picture's size, not finite where unknown; None without a point map.
        full_image: the full frame as the networks see it, `[1, 3, S, S]`. The condition inputs of every object hold
            this very tensor under `rgb_image`, so that whoever embeds it can tell that it is the same.
        full_points: the same of the points, with what lies beyond the picture: see `resize_nearest`.
    """

    pixels: Tensor
    points: Tensor | None
    full_image: Tensor
    full_points: tuple[Tensor, Tensor] | None

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.pixels.numpy(), dtype=dtype, copy=copy if copy else None)


def share_picture(
    image: Any, pointmap: Any = None, *, image_size: int = 518, device: torch.device | str = "cpu"
) -> SharedPicture:
    """Prepares a picture for any number of objects; arguments as of `prepare_condition`.

    Args:
        device: where `full_image` goes.

    Raises:
        UserError: an image or point map of the wrong kind or size.
    """
    pixels = torch.tensor(as_image(image))
    height, width = pixels.shape[:2]
    box = square_box(height, width)
    points = None if pointmap is None else as_pointmap(pointmap, height, width)
    if points is not None and not bool(torch.isfinite(points).any()):
        logger.warning("the point map knows no point, so the picture is taken as one without a point map")
        points = None
    return SharedPicture(
        pixels,
        points,
        resize_image(pixels, box, image_size)[None].to(device),
        None if points is None else resize_nearest(points, box, image_size, unknown=torch.nan),
    )


def _resized_mask(inside: Tensor, box: tuple[int, int, int, int], size: int) -> Tensor:
    alpha, beyond = resize_nearest(inside[..., None], box, size, unknown=False)
    return (alpha & ~beyond).float()[None]


def _normalised(picked: tuple[Tensor, Tensor] | None, scale: Tensor, shift: Tensor, size: int) -> Tensor:
    """Points of a view about the object, `[1, 3, S, S]`; all unknown where there is no point map."""
    if picked is None:
        return torch.full((1, 3, size, size), torch.nan)
    values, beyond = picked
    finite = torch.isfinite(values).all(dim=0)
    points = torch.where(finite, (values - shift[:, None, None]) / scale[:, None, None], torch.nan)
    # Beyond the picture points are zero, which looks known; the official model was trained so.
    return torch.where(beyond, 0.0, points)[None]
