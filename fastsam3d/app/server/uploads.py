"""Reads uploaded pictures and masks: checks them, limits their size, and never names a path of this machine."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from fastsam3d.basics.picture_files import NeedsHeif, open_image_file
from fastsam3d.errors import UserError
from fastsam3d.jobs.masks import Mask, read_mask
from fastsam3d.jobs.pictures import Picture, read_picture

T = TypeVar("T")


@dataclass(frozen=True)
class Limits:
    """Largest values in a visitor's requests.

    Attributes:
        file_bytes: size of one upload, in bytes.
        pixels: number of pixels of an uploaded picture.
        side: longest side of the picture that is used, in pixels; larger pictures are made smaller.
        objects: number of marked objects in one picture.
        seeds: number of seeds in one run.
        results: number of results that are kept for each visitor.
    """

    file_bytes: int = 20 * 2**20
    pixels: int = 50_000_000
    side: int = 2048
    objects: int = 12
    seeds: int = 8
    results: int = 6


def read_upload(path: str | Path, limits: Limits) -> tuple[Picture, str | None]:
    """Reads an uploaded picture; returns it with a note if it was changed. Its doubts name the file without its folder.

    Raises:
        UserError: it is no picture, is damaged, or exceeds the limits. The message names the file without its folder.
    """
    path = Path(path)
    width, height = _checked_size(path, limits, "picture")
    if min(width, height) < 16:
        raise UserError(f"{path.name} is only {width} x {height} pixels. Choose a larger picture.")
    picture = _without_path(path, lambda: read_picture(path))
    odd = tuple(text.replace(str(path), path.name) for text in picture.doubts)
    picture = dataclasses.replace(picture, doubts=odd)
    rows, columns = picture.size
    factor = limits.side / max(rows, columns)
    if factor >= 1:
        return picture, None
    size = (max(1, round(columns * factor)), max(1, round(rows * factor)))
    pixels = np.asarray(Image.fromarray(picture.pixels).resize(size, Image.Resampling.LANCZOS))
    alpha = picture.alpha
    if alpha is not None:
        alpha = np.asarray(Image.fromarray(alpha).resize(size, Image.Resampling.BILINEAR))
    note = f"The picture was made smaller, from {columns} x {rows} to {size[0]} x {size[1]} pixels."
    return dataclasses.replace(picture, pixels=pixels, alpha=alpha), note


def read_uploaded_mask(path: str | Path, picture: Picture, limits: Limits) -> Mask:
    """Reads an uploaded mask at the picture's size. The mask and its notes name the file without its folder.

    A mask of another size but with the picture's proportions is resized (nearest neighbour), because large pictures
    were made smaller.

    Raises:
        UserError: it is no mask, is damaged or empty, has other proportions than the picture, or exceeds the limits.
    """
    path = Path(path)
    width, height = _checked_size(path, limits, "mask")
    rows, columns = picture.size
    if (height, width) == (rows, columns):
        return _named(_without_path(path, lambda: read_mask(path, picture)), path)
    if not _same_shape(height, width, picture) and _same_shape(width, height, picture):
        height, width = width, height  # turned as the picture was, or by a tag of its own
    if not _same_shape(height, width, picture):
        raise UserError(
            f"{path.name} is {width} x {height} pixels, the picture {columns} x {rows}: the mask has another shape. "
            "Make it from the same picture."
        )
    blank = dataclasses.replace(picture, pixels=np.zeros((height, width, 3), dtype=np.uint8), alpha=None)
    mask: Mask = _without_path(path, lambda: read_mask(path, blank))
    resized = Image.fromarray(mask.pixels).resize((columns, rows), Image.Resampling.NEAREST)
    return _named(dataclasses.replace(mask, pixels=np.asarray(resized)), path)


def _named(mask: Mask, path: Path) -> Mask:
    notes = tuple(text.replace(str(path), path.name) for text in mask.notes)
    return dataclasses.replace(mask, path=Path(path.name), notes=notes)


def _same_shape(height: int, width: int, picture: Picture) -> bool:
    """Tells whether a size has the picture's proportions, up to one pixel of rounding."""
    rows, columns = picture.size
    factor = max(height / rows, width / columns)
    return abs(height - factor * rows) <= max(1, factor) and abs(width - factor * columns) <= max(1, factor)


def _checked_size(path: Path, limits: Limits, what: str) -> tuple[int, int]:
    size = path.stat().st_size
    if size > limits.file_bytes:
        raise UserError(
            f"{path.name} has {size / 2**20:.0f} MiB; up to {limits.file_bytes / 2**20:.0f} are taken. Make it smaller."
        )
    try:
        with open_image_file(path) as image:
            width, height = image.size
    except NeedsHeif:
        raise UserError(f"{path.name} is a HEIC file, which is not read here: use a PNG, JPEG or WebP file.") from None
    except Exception:  # decoders raise many kinds on a damaged file
        raise UserError(f"{path.name} is no {what} that can be read: use a PNG, JPEG or WebP file.") from None
    if width * height > limits.pixels:
        raise UserError(
            f"{path.name} has {width * height / 1e6:.0f} megapixels; up to {limits.pixels / 1e6:.0f} are taken. "
            "Make it smaller."
        )
    return width, height


def _without_path(path: Path, read: Callable[[], T]) -> T:
    try:
        return read()
    except UserError as error:
        raise UserError(str(error).replace(str(path), path.name)) from None
