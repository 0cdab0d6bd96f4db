"""Reads the masks of a scene: numbered files beside the picture, a folder of masks, or one label image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from fastsam3d.basics.paths import require_folder, user_path
from fastsam3d.errors import UserError
from fastsam3d.jobs.masks import (
    Mask,
    all_masks,
    is_number,
    mask_files,
    mask_of,
    read_mask,
    refuse_doubles,
    values_of,
    without_specks,
)
from fastsam3d.jobs.pictures import ARRAY, SUFFIXES, Picture, file_called, load_numbers, open_image, orientation_of
from fastsam3d.jobs.pointmaps import POINTMAP
from fastsam3d.jobs.reading.orientation import refuse_size, upright

LABELS = "labels"
"""Stem of a label image beside the picture."""
MOST_LABELS = 512
IGNORED = {"uint8": 255, "uint16": 65535}
"""In label images with small labels, the largest number can mean "no object"."""
LARGEST_BESIDE_IGNORED = 64
"""Data sets with such a number have labels below this; 255 beside larger labels is an object."""
EDGE_SHARE = 0.5
"""Share of labels without any inner pixel from which a label image counts as smoothed."""


def scene_masks(picture: Picture, choice: str | None, most: int | None = None) -> list[Mask]:
    """Reads the masks of a picture, each with a different label.

    Args:
        choice: a folder of masks, a label image, or an `.npy` array of labels `[H, W]` or of masks `[N, H, W]`;
            None: the masks beside the picture.
        most: largest number of objects of a label image that `choice` names; each needs a byte per pixel.

    Returns:
        All masks. `Mask.problem` says why a single mask cannot be used.

    Raises:
        UserError: there are no masks, masks of several kinds, or no usable mask.
    """
    if choice is None:
        return _beside(picture)
    path = user_path(choice)
    if path.is_dir():
        return _in_folder(path, picture)
    if path.suffix.lower() == ARRAY:
        values = load_numbers(path, f"the masks {path}")
        if values.ndim == 3:
            return _stacked(values, path, picture)
    elif path.is_file():  # of any format that is read: an animated GIF file has pages, too
        image = open_image(path, "label image")
        if getattr(image, "n_frames", 1) > 1:
            return _pages(image, path, picture)
    return read_labels(path, picture, most)


def object_name(mask: Mask) -> str:
    """Returns the name of a mask's object and files: `object_0` for `0.png` and for label 0, else the file's stem."""
    return f"object_{mask.label}" if is_number(mask.label) else mask.label


def read_labels(path: Path, picture: Picture, most: int | None = None) -> list[Mask]:
    """Reads a label image: one mask for each value except 0 (or black), which is the background.

    Grey values, palette indices, numbers of 16 and 32 bits and numbers of an `.npy` array are used as they are stored;
    numbers below zero are background. In colour pictures every exact colour is a label, and labels are numbered in
    ascending order of (red, green, blue).

    Args:
        most: see `scene_masks`.

    Raises:
        UserError: it is missing or unreadable, has another size than the picture or no labels, or is no label image.
    """
    what = f"the label image {path}"
    if path.suffix.lower() == ARRAY:
        stored, ignored, orientation = _label_array(path), IGNORED["uint8"], 1
    else:
        image = open_image(path, "label image")
        stored, orientation = _label_values(image, path), orientation_of(image)
        ignored = IGNORED["uint16" if image.mode.startswith("I") else "uint8"]
    values, notes = upright(stored, orientation, picture, what)
    refuse_size(values.shape, picture, what)
    labels = [int(value) for value in np.unique(values) if value != 0]
    if len(labels) > 1 and labels[-1] == ignored and labels[-2] < LARGEST_BESIDE_IGNORED:
        notes.append(f"{what}: {ignored} is taken for pixels of no object; give an object of that value another one.")
        labels.pop()
    if not labels:
        raise UserError(f"the label image {path} is all background (0): give every object a value of its own.")
    if len(labels) > MOST_LABELS:
        raise UserError(
            f"{path} has {len(labels)} different values and looks like a photograph, not like a label image: "
            "give every object one value, without smoothing, saved as PNG."
        )
    if most is not None and len(labels) > most:
        raise UserError(f"there are {len(labels)} masks in {path}: up to {most} are taken.")
    _refuse_smoothed(values, labels, path)
    numbers = range(1, len(labels) + 1) if max(labels) > 65535 else labels
    masks = []
    for number, label in zip(numbers, labels, strict=True):
        inside, told = without_specks(values == label, f"label {number} of {path}")
        masks.append(Mask(str(number), path, inside, notes=(*notes, *told)))
        notes = []
    return masks


def _refuse_smoothed(values: np.ndarray, labels: Sequence[int], path: Path) -> None:
    """Refuses a label image with values between labels: smoothing and JPEG make such values along the edges.

    Raises:
        UserError: it has such values: most labels have no pixel whose four neighbours have the same value.
    """
    inner = values[1:-1, 1:-1]
    alike = (inner == values[:-2, 1:-1]) & (inner == values[2:, 1:-1])
    alike &= (inner == values[1:-1, :-2]) & (inner == values[1:-1, 2:])
    solid = {int(value) for value in np.unique(inner[alike])} & set(labels)
    edges = len(labels) - len(solid)
    if edges >= 3 and edges >= EDGE_SHARE * len(labels):
        raise UserError(
            f"{path} was smoothed: {edges} of its {len(labels)} values lie along edges only. Make it again without "
            "smoothing (nearest neighbour), saved as PNG; or give one mask a file."
        )


def _pages(image: Image.Image, path: Path, picture: Picture) -> list[Mask]:
    """Reads every page of a file as a mask, numbered from 0."""
    from PIL import ImageSequence

    if getattr(image, "n_frames", 1) > MOST_LABELS:
        raise UserError(f"{path} has {getattr(image, 'n_frames', 1)} pages: at most {MOST_LABELS} masks are possible.")
    pages = [page.copy() for page in ImageSequence.Iterator(image)]

    def read(label: str, page: Image.Image) -> Mask:
        return mask_of(label, path, values_of(page, path), picture, orientation_of(page))

    return _usable([(str(n), path, partial(read, str(n), page)) for n, page in enumerate(pages)])


def _label_array(path: Path) -> np.ndarray:
    return _whole_numbers(load_numbers(path, f"the label image {path}"), path)


def _whole_numbers(values: np.ndarray, path: Path) -> np.ndarray:
    """Returns stored numbers as labels, int64 `[H, W]`; numbers below zero are background.

    Raises:
        UserError: they are not whole, or not `[H, W]`.
    """
    if values.ndim != 2 or not np.isfinite(values).all() or (values % 1 != 0).any():
        raise UserError(
            f"the label image {path} is {values.dtype} of shape {values.shape}: give whole numbers [H, W], one for "
            "each object, or masks [N, H, W]."
        )
    return np.maximum(values.astype(np.int64), 0)


def _stacked(values: np.ndarray, path: Path, picture: Picture) -> list[Mask]:
    if len(values) > MOST_LABELS:
        raise UserError(f"{path} has the shape {values.shape}: give masks [N, H, W], at most {MOST_LABELS}.")
    return _usable([(str(n), path, partial(mask_of, str(n), path, own, picture)) for n, own in enumerate(values)])


def _usable(entries: Sequence[tuple[str, Path, Callable[[], Mask]]]) -> list[Mask]:
    """Reads all masks. A mask that cannot be used holds its problem, and the other objects are still made.

    Raises:
        UserError: no mask can be used; the error is that of the first one.
    """
    masks = []
    for label, path, read in entries:
        try:
            masks.append(read())
        except UserError as error:
            masks.append(Mask(label, path, np.zeros((0, 0), dtype=bool), str(error)))
    if masks and all(mask.problem for mask in masks):
        first = masks[0].problem
        raise UserError(first if len(masks) == 1 else f"none of the {len(masks)} objects can be reconstructed: {first}")
    return masks


def _beside(picture: Picture) -> list[Mask]:
    folder = picture.path.parent
    labels = file_called(folder, LABELS, SUFFIXES, other_than=picture.path.name)
    numbered = mask_files(folder, picture.path)
    if labels is None:
        if not numbered:
            return all_masks(picture)  # its error says what is missing
        refuse_doubles(picture)
        return _usable(
            [(str(n), path, partial(read_mask, path, picture, str(n))) for n, path in sorted(numbered.items())]
        )
    if numbered:
        first = numbered[min(numbered)].name
        raise UserError(
            f"{folder} has both masks ({first}, ...) and a label image ({labels.name}): "
            f"choose with --masks {folder / labels.name}, or remove it."
        )
    return read_labels(labels, picture)


def _in_folder(folder: Path, picture: Picture) -> list[Mask]:
    beside = folder.samefile(picture.path.parent)
    files = [
        path
        for path in sorted(require_folder(folder).iterdir())
        if path.suffix.lower() in (*SUFFIXES, ARRAY)
        and not _is_picture(path, picture, beside)
        and path.name != POINTMAP
        and not path.name.startswith(".")
    ]
    if beside:
        files = [path for path in files if is_number(path.stem)]
    if not files:
        raise UserError(f"there are no masks in {folder}: put one file per object there, RGBA, greyscale or .npy.")
    stems = [path.stem for path in files]
    twice = next((stem for stem in stems if stems.count(stem) > 1), None)
    if twice is not None:
        raise UserError(f"{folder} has two masks called {twice}: rename one, objects are named after their masks.")
    if len(files) == 1 and files[0].stem == LABELS:
        return read_labels(files[0], picture)
    order = sorted(
        files, key=lambda path: (0, int(path.stem), path.stem) if is_number(path.stem) else (1, 0, path.stem)
    )
    return _usable([(path.stem, path, partial(read_mask, path, picture)) for path in order])


def _is_picture(path: Path, picture: Picture, beside: bool) -> bool:
    """Tells whether a file among masks is the picture, or a link to it. A cut-out may be both picture and mask."""
    if beside and path.name == picture.path.name:
        return True
    return picture.alpha is None and path.exists() and path.samefile(picture.path)


def _label_values(image: Image.Image, path: Path) -> np.ndarray:
    """Returns one number per pixel; 0 is background."""
    if image.mode in ("P", "L", "1", "F") or image.mode.startswith("I"):
        return _whole_numbers(np.asarray(image), path)
    pixels = np.asarray(image.convert("RGBA")).astype(np.int64)
    codes = (pixels[..., 0] << 16) | (pixels[..., 1] << 8) | pixels[..., 2]
    if image.mode in ("LA", "La"):
        codes = pixels[..., 0]
    return np.where(pixels[..., 3] == 0, 0, codes)
