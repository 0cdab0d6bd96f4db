"""Reads mask files of many kinds: cut-outs, grey, palettes, scores, arrays; single, or numbered beside a picture."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from fastsam3d.basics.paths import require_folder, user_path
from fastsam3d.basics.pixels import far_specks, inside_of
from fastsam3d.errors import UserError
from fastsam3d.jobs.pictures import ARRAY, SUFFIXES, Picture, alpha_of, load_numbers, open_image, orientation_of
from fastsam3d.jobs.reading.orientation import refuse_size, upright


@dataclass(frozen=True)
class Mask:
    """A mask of one object, or the reason why it cannot be used.

    Attributes:
        label: number or stem of its file.
        path: its file; of a mask that was made of marks, the picture's file.
        pixels: bool `[H, W]`; empty if the mask cannot be used.
        problem: why it cannot be used; None if it can.
        notes: how it was read, if the user may have meant something else.
        marks: the marks that it was made of, as plain values; None if it was read from a file.
    """

    label: str
    path: Path
    pixels: np.ndarray
    problem: str | None = None
    notes: tuple[str, ...] = ()
    marks: dict[str, object] | None = None

    @property
    def file(self) -> Path | None:
        """Returns the file that it was read from; None if it was made of marks."""
        return None if self.marks is not None else self.path

    @property
    def called(self) -> str:
        """Returns its name in messages."""
        return "the mask of the marks" if self.marks is not None else f"the mask {self.path}"


def read_mask(path: str | Path, picture: Picture, label: str | None = None) -> Mask:
    """Reads a mask file: its alpha channel if that is not the same everywhere, else its brightness; numbers of `.npy`.

    Raises:
        UserError: it is missing or unreadable, has another size than the picture, or is empty.
    """
    path = user_path(path)
    if path.suffix.lower() == ARRAY:
        return mask_of(path.stem if label is None else label, path, _mask_array(path), picture)
    image = open_image(path, "mask")
    pages = getattr(image, "n_frames", 1)
    if pages > 1:
        raise UserError(
            f"the mask {path} has {pages} pages: give a file with one, or all pages as the objects of a scene with "
            f"infer_scene --masks {path}."
        )
    name = path.stem if label is None else label
    return mask_of(name, path, values_of(image, path), picture, orientation_of(image))


def values_of(image: Image.Image, path: Path) -> np.ndarray:
    """Returns numbers `[H, W]` of a mask picture: its alpha if that is not the same everywhere, else its brightness.

    Args:
        path: for messages.

    Raises:
        UserError: a colour picture without transparency.
    """
    alpha = alpha_of(image)
    return _brightness(image, path) if alpha is None else alpha


def doubts(mask: Mask) -> list[str]:
    """Returns doubts about a usable mask, for warnings before any work."""
    inside = mask.pixels
    told = list(mask.notes)
    if inside.all():
        told.append(f"{mask.called} covers the whole picture, so the background counts as the object.")
        return told
    rim = np.concatenate([inside[0], inside[-1], inside[:, 0], inside[:, -1]])
    if rim.mean() > 0.9 and inside.mean() > 0.5:
        told.append(
            f"{mask.called} holds the rim of the picture and leaves something out inside: is it inverted? "
            "White, or opaque, is the object."
        )
    return told


def choose_mask(picture: Picture, index: int) -> Mask:
    """Reads the mask with a number beside the picture. If the picture is a cut-out itself, its own alpha is the mask.

    Raises:
        UserError: there is no such mask, or it cannot be used.
    """
    files = mask_files(picture.path.parent, picture.path)
    if index in files:
        refuse_doubles(picture, index)
        return read_mask(files[index], picture, str(index))
    if files:
        known = ", ".join(str(number) for number in sorted(files))
        raise UserError(f"there is no mask {index}.png in {picture.path.parent}: --mask_index can be {known}.")
    if picture.alpha is not None and index == 0:
        return mask_of("cutout", picture.path, picture.alpha, picture)
    raise UserError(
        f"no mask for {picture.path}. Mark the object: --box x0,y0,x1,y1 or --point x,y, or in the browser: "
        f"python gradio_demo.py. Or put {index}.png (RGBA whose alpha is the mask, or greyscale) beside the picture, "
        "or give --mask_path FILE."
    )


def all_masks(picture: Picture) -> list[Mask]:
    """Reads every numbered mask beside the picture, in order of the numbers.

    Raises:
        UserError: there is no mask, or one cannot be used.
    """
    files = mask_files(picture.path.parent, picture.path)
    if not files:
        raise UserError(
            f"no masks in {picture.path.parent}. Mark the objects: --box x0,y0,x1,y1 for each, or --all, or in the "
            "browser: python gradio_demo.py. Or put 0.png, 1.png, ... there, RGBA whose alpha is the mask, or "
            "greyscale."
        )
    return [read_mask(files[number], picture, str(number)) for number in sorted(files)]


def mask_files(folder: Path, picture: Path) -> dict[int, Path]:
    """Returns the numbered image files of a folder, without the picture itself, by number."""
    found: dict[int, Path] = {}
    for path in _numbered(folder, picture):
        found.setdefault(int(path.stem), path)
    return found


def refuse_doubles(picture: Picture, only: int | None = None) -> None:
    """Refuses two masks of one number beside a picture, such as 0.png and 0.jpg, or 0.png and 00.png.

    Args:
        only: the number to check; by default all.

    Raises:
        UserError: two masks have the same number.
    """
    seen: dict[int, Path] = {}
    for path in _numbered(picture.path.parent, picture.path):
        number = int(path.stem)
        if number in seen and only in (None, number):
            raise UserError(
                f"{path.parent} has two masks of number {number}: {seen[number].name} and {path.name}. Rename or "
                "remove one."
            )
        seen[number] = path


def is_number(text: str) -> bool:
    """Tells whether a file's stem is a number, of the digits 0 to 9 only."""
    return re.fullmatch(r"[0-9]+", text) is not None


def _numbered(folder: Path, picture: Path) -> list[Path]:
    return [
        path
        for path in sorted(require_folder(folder).iterdir())
        if is_number(path.stem)
        and len(path.stem) <= 9
        and path.suffix.lower() in SUFFIXES
        and path.name != picture.name
    ]


def mask_of(label: str, path: Path, values: np.ndarray, picture: Picture, orientation: int = 1) -> Mask:
    """Makes a mask of bool or numbers `[H, W]`, see `fastsam3d.basics.pixels.inside_of`.

    Specks far from the object are removed; `Mask.notes` says so.

    Args:
        path: file of the values, for messages.
        orientation: orientation tag of that file, see `upright`.

    Raises:
        UserError: it has another size than the picture, is empty, too small, or holds labels of several objects.
    """
    values, notes = upright(values, orientation, picture, f"the mask {path}")
    refuse_size(values.shape, picture, f"the mask {path}")
    _refuse_labels(values, path)
    inside = inside_of(values)
    if not inside.any():
        raise UserError(f"the mask {path} is empty: no pixel belongs to the object. Choose another mask.")
    inside, told = without_specks(inside, f"the mask {path}")
    refuse_specks(inside, path)
    return Mask(label, path, inside, notes=(*notes, *told))


def without_specks(inside: np.ndarray, what: str) -> tuple[np.ndarray, list[str]]:
    """Returns (the mask without specks far from the object, sentences about them and about larger parts that stay).

    Args:
        what: name of the mask in the sentences.
    """
    inside, specks, doubtful = far_specks(inside)
    told = []
    if specks:
        told.append(
            f"{what} has {len(specks)} speck{'s' * (len(specks) > 1)} far from the object "
            f"({', '.join(map(str, specks[:4]))}{', ...' * (len(specks) > 4)} pixels): left out."
        )
    if doubtful:
        told.append(f"{what} has a part of {doubtful[0]} pixels far from the rest: if it is a mistake, remove it.")
    return inside, told


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
    # Channel by channel, because a reduction over an axis of length three takes seconds for a large photo.
    high, low = (pick(pick(pixels[..., 0], pixels[..., 1]), pixels[..., 2]) for pick in (np.maximum, np.minimum))
    # JPEG leaves traces of colour in grey pictures.
    if (high - low).mean() <= 8:
        return high
    inside = pixels[high > 0]
    if len(inside) < high.size and (inside == inside[0]).all():
        # One colour on black, as in pictures with a palette.
        return high > 0
    raise UserError(
        f"the mask {path} is a colour picture without transparency: give an RGBA cut-out, a greyscale mask, or one "
        "colour on black. A label image of several objects is for infer_scene --masks."
    )


def _refuse_labels(values: np.ndarray, path: Path) -> None:
    """Refuses several small whole numbers: they are labels, and half of the largest would select some objects."""
    if values.dtype.kind == "b" or not 1 < values.max() < 128 or values.min() < 0 or (values % 1 != 0).any():
        return
    labels = np.flatnonzero(np.bincount(values.astype(np.int64).ravel())[1:]) + 1
    if len(labels) > 1:
        raise UserError(
            f"the mask {path} holds several values ({', '.join(map(str, labels[:4]))}{', ...' * (len(labels) > 4)}) "
            "like a label image of several objects: that is for infer_scene --masks. Of one object give a mask of "
            "0 and 255."
        )


def refuse_specks(inside: np.ndarray, path: Path) -> None:
    """Refuses a mask that is too small for a crop of the picture around it.

    Raises:
        UserError: it is too small.
    """
    import torch

    from fastsam3d.sam3d.pipeline.preprocessing import crop_box

    try:
        crop_box(torch.from_numpy(inside))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
