"""The masks of a scene: numbered files beside the picture, a folder of masks, or one label image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from fastsam3d.basics.paths import user_path
from fastsam3d.errors import UserError
from fastsam3d.jobs.masks import Mask, all_masks, mask_files, mask_of, read_mask
from fastsam3d.jobs.pictures import ARRAY, SUFFIXES, Picture, load_numbers, open_image
from fastsam3d.jobs.pointmaps import POINTMAP

LABELS = "labels"
"""Stem of a label image beside the picture."""
MOST_LABELS = 512


def scene_masks(picture: Picture, choice: str | None) -> list[Mask]:
    """The masks of a picture, each with a label of its own.

    Args:
        choice: a folder of masks, a label image, or an `.npy` array of labels `[H, W]` or of masks `[N, H, W]`;
            None: what lies beside the picture.

    Returns:
        All of them; `Mask.problem` says of single ones why they cannot be used.

    Raises:
        UserError: no masks, several kinds of them, or none that can be used.
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
    return read_labels(path, picture)


def object_name(mask: Mask) -> str:
    """Name of a mask's object, and of its files: `object_0` of `0.png` and of label 0, else the file's stem."""
    return f"object_{mask.label}" if mask.label.isdecimal() else mask.label


def read_labels(path: Path, picture: Picture) -> list[Mask]:
    """One mask for each value of a label image but 0 (or black), which is the background.

    Grey values, palette indices, 16-bit numbers and those of an `.npy` array count as they are stored; of colour
    pictures every exact colour is a label, and labels are numbered in ascending order of (red, green, blue).

    Raises:
        UserError: missing or unreadable, of another size than the picture, without labels, or no label image.
    """
    values = _label_array(path) if path.suffix.lower() == ARRAY else _label_values(open_image(path, "label image"))
    if values.shape != picture.size:
        (height, width), (rows, columns) = picture.size, values.shape
        raise UserError(
            f"the label image {path} is {columns} x {rows} pixels, the picture {width} x {height}: "
            "resize it to the picture (nearest neighbour, never smoothed)."
        )
    labels = [int(value) for value in np.unique(values) if value != 0]
    if not labels:
        raise UserError(f"the label image {path} is all background (0): give every object a value of its own.")
    if len(labels) > MOST_LABELS:
        raise UserError(
            f"{path} has {len(labels)} different values and looks like a photograph, not like a label image: "
            "give every object one value, without smoothing, saved as PNG."
        )
    numbers = range(1, len(labels) + 1) if max(labels) > 65535 else labels
    return [Mask(str(n), path, values == label) for n, label in zip(numbers, labels, strict=True)]


def _label_array(path: Path) -> np.ndarray:
    values = load_numbers(path, f"the label image {path}")
    if values.ndim != 2 or not np.isfinite(values).all() or (values % 1 != 0).any():
        raise UserError(
            f"the label image {path} is {values.dtype} of shape {values.shape}: give whole numbers [H, W], one for "
            "each object, or masks [N, H, W]."
        )
    return np.maximum(values.astype(np.int64), 0)  # -1 is background as well


def _stacked(values: np.ndarray, path: Path, picture: Picture) -> list[Mask]:
    if len(values) > MOST_LABELS:
        raise UserError(f"{path} has the shape {values.shape}: give masks [N, H, W], at most {MOST_LABELS}.")
    return _usable([(str(n), path, partial(mask_of, str(n), path, own, picture)) for n, own in enumerate(values)])


def _usable(entries: Sequence[tuple[str, Path, Callable[[], Mask]]]) -> list[Mask]:
    """Reads all masks; one that cannot be used holds its problem, and does not stop the other objects.

    Raises:
        UserError: that of the first one, where none can be used.
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
    labels = _label_file(folder, picture)
    numbered = mask_files(folder, picture.path)
    if labels is None:
        if not numbered:
            return all_masks(picture)  # says what is missing
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
    own = picture.path.resolve()
    files = [
        path
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in (*SUFFIXES, ARRAY)
        and path.resolve() != own
        and path.name != POINTMAP
        and not path.name.startswith(".")
    ]
    if own.parent == folder.resolve():
        files = [path for path in files if path.stem.isdecimal()]
    if not files:
        raise UserError(f"there are no masks in {folder}: put one file per object there, RGBA, greyscale or .npy.")
    stems = [path.stem for path in files]
    twice = next((stem for stem in stems if stems.count(stem) > 1), None)
    if twice is not None:
        raise UserError(f"{folder} has two masks called {twice}: rename one, objects are named after their masks.")
    if len(files) == 1 and files[0].stem == LABELS:
        return read_labels(files[0], picture)
    order = sorted(files, key=lambda path: (0, int(path.stem), "") if path.stem.isdecimal() else (1, 0, path.stem))
    return _usable([(path.stem, path, partial(read_mask, path, picture)) for path in order])


def _label_file(folder: Path, picture: Picture) -> Path | None:
    for suffix in SUFFIXES:
        path = folder / f"{LABELS}{suffix}"
        if path.is_file() and path.name != picture.path.name:
            return path
    return None


def _label_values(image: Image.Image) -> np.ndarray:
    """One number a pixel; 0 is background."""
    if image.mode in ("P", "L", "1") or image.mode.startswith("I"):
        return np.asarray(image).astype(np.int64)
    pixels = np.asarray(image.convert("RGBA")).astype(np.int64)
    codes = (pixels[..., 0] << 16) | (pixels[..., 1] << 8) | pixels[..., 2]
    if image.mode in ("LA", "La"):
        codes = pixels[..., 0]
    return np.where(pixels[..., 3] == 0, 0, codes)
