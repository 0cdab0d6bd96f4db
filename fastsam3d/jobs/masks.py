"""Mask files as people have them: cut-outs, grey, palettes, scores and arrays, alone or numbered beside a picture."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from fastsam3d.basics.paths import user_path
from fastsam3d.errors import UserError
from fastsam3d.jobs.pictures import ARRAY, SUFFIXES, Picture, alpha_of, load_numbers, open_image


@dataclass(frozen=True)
class Mask:
    """A mask file's number or stem, and its pixels as bool `[H, W]`; of one that cannot be used, why, and no pixels."""

    label: str
    path: Path
    pixels: np.ndarray
    problem: str | None = None


def read_mask(path: str | Path, picture: Picture, label: str | None = None) -> Mask:
    """A mask file: its alpha channel where that says anything, else its brightness; of an `.npy` file, its numbers.

    Raises:
        UserError: missing or unreadable, of another size than the picture, or empty.
    """
    path = user_path(path)
    if path.suffix.lower() == ARRAY:
        return mask_of(path.stem if label is None else label, path, _mask_array(path), picture)
    image = open_image(path, "mask")
    if image.size != picture.pixels.shape[1::-1] and ImageOps.exif_transpose(image).size == image.size[::-1]:
        image = ImageOps.exif_transpose(image)
    alpha = alpha_of(image)
    if alpha is None:
        alpha = _brightness(image, path)
    return mask_of(path.stem if label is None else label, path, alpha, picture)


def doubts(mask: Mask) -> str | None:
    """Describes what is odd about a usable mask, for a warning; None where nothing is."""
    inside = mask.pixels
    if inside.all():
        return f"the mask {mask.path} covers the whole picture, so what is behind the object counts as the object."
    rim = np.concatenate([inside[0], inside[-1], inside[:, 0], inside[:, -1]])
    if rim.mean() > 0.9 and inside.mean() > 0.5:
        return (
            f"the mask {mask.path} holds the rim of the picture and leaves something out inside: is it inverted? "
            "White, or opaque, is the object."
        )
    return None


def choose_mask(picture: Picture, index: int) -> Mask:
    """The mask of a number beside the picture; of a picture that is a cut-out itself, its own alpha.

    Raises:
        UserError: no such mask, or one that cannot be used.
    """
    files = mask_files(picture.path.parent, picture.path)
    if index in files:
        return read_mask(files[index], picture, str(index))
    if files:
        known = ", ".join(str(number) for number in sorted(files))
        raise UserError(f"there is no mask {index}.png in {picture.path.parent}: --mask_index can be {known}.")
    if picture.alpha is not None and index == 0:
        return mask_of("cutout", picture.path, picture.alpha, picture)
    raise UserError(
        f"no mask for {picture.path}: put {index}.png (RGBA whose alpha is the mask, or greyscale) beside it, "
        "or give --mask_path FILE."
    )


def all_masks(picture: Picture) -> list[Mask]:
    """Every numbered mask beside the picture, by number.

    Raises:
        UserError: there is none, or one cannot be used.
    """
    files = mask_files(picture.path.parent, picture.path)
    if not files:
        raise UserError(
            f"no masks in {picture.path.parent}: put 0.png, 1.png, ... there, RGBA whose alpha is the mask, "
            "or greyscale."
        )
    return [read_mask(files[number], picture, str(number)) for number in sorted(files)]


def mask_files(folder: Path, picture: Path) -> dict[int, Path]:
    """Numbered image files of a folder but for the picture itself, by number."""
    found: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        if re.fullmatch(r"\d{1,9}", path.stem) and path.suffix.lower() in SUFFIXES and path.name != picture.name:
            found.setdefault(int(path.stem), path)
    return found


def mask_of(label: str, path: Path, values: np.ndarray, picture: Picture) -> Mask:
    """Makes a mask of bool or numbers `[H, W]`: above half of the largest, or above zero for scores with a sign.

    Args:
        path: the file that they are from, for messages.

    Raises:
        UserError: of another size than the picture, empty, a speck, or the labels of several objects.
    """
    if values.shape != picture.size:
        (height, width), (rows, columns) = picture.size, values.shape
        raise UserError(
            f"the mask {path} is {columns} x {rows} pixels, the picture {width} x {height}: "
            "resize the mask to the picture (nearest neighbour)."
        )
    _refuse_labels(values, path)
    low, top = float(values.min()), float(values.max())
    # Negative numbers are the scores of a network, or -1 for the background: the object is above zero.
    inside = values > (0 if low < 0 else top / 2)
    if not inside.any():
        raise UserError(f"the mask {path} is empty: no pixel belongs to the object. Choose another mask.")
    _refuse_specks(inside, path)
    return Mask(label, path, inside)


def _mask_array(path: Path) -> np.ndarray:
    values = np.squeeze(load_numbers(path, f"the mask {path}"))
    if values.ndim != 2:
        raise UserError(f"the mask {path} has the shape {values.shape}: give bool or numbers [H, W].")
    if not np.isfinite(values).all():
        raise UserError(f"the mask {path} holds values that are not finite: give bool or numbers [H, W].")
    return values


def _brightness(image: Image.Image, path: Path) -> np.ndarray:
    if image.mode.startswith("I") or image.mode == "F":
        return np.asarray(image)
    if image.mode in ("1", "L"):
        return np.asarray(image.convert("L"))
    pixels = np.asarray(image.convert("RGB"))
    # Channel by channel: a reduction over an axis of three takes seconds for a large photo.
    high, low = (
        pick(pick(pixels[..., 0], pixels[..., 1]), pixels[..., 2]) for pick in (np.maximum, np.minimum)
    )
    # JPEG leaves traces of colour in grey pictures.
    if (high - low).mean() <= 8:
        return high
    inside = pixels[high > 0]
    if len(inside) < high.size and (inside == inside[0]).all():
        # One colour on black, as palettes have it.
        return high > 0
    raise UserError(
        f"the mask {path} is a colour picture without transparency: give an RGBA cut-out, a greyscale mask, or one "
        "colour on black. A label image of several objects is for infer_scene --masks."
    )


def _refuse_labels(values: np.ndarray, path: Path) -> None:
    """Small whole numbers, and several of them: half of the largest would pick some of the objects."""
    if values.dtype.kind == "b" or not 1 < values.max() < 128 or values.min() < 0 or (values % 1 != 0).any():
        return
    labels = np.flatnonzero(np.bincount(values.astype(np.int64).ravel())[1:]) + 1
    if len(labels) > 1:
        raise UserError(
            f"the mask {path} holds several values ({', '.join(map(str, labels[:4]))}{', ...' * (len(labels) > 4)}) "
            "like a label image of several objects: that is for infer_scene --masks. Of one object give a mask of "
            "0 and 255."
        )


def _refuse_specks(inside: np.ndarray, path: Path) -> None:
    import torch

    from fastsam3d.sam3d.pipeline.preprocessing import crop_box

    try:
        crop_box(torch.from_numpy(inside))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
