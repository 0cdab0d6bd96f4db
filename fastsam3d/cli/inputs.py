"""Pictures, masks and point maps from files, with errors that name the file and the way out."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from fastsam3d.cli.suggestions import suggestion
from fastsam3d.errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
ARRAY = ".npy"
PICTURE, POINTMAP = "image", "pointmap.npy"


@dataclass(frozen=True)
class Mask:
    """A mask file's number or stem, and its pixels as bool `[H, W]`; of one that cannot be used, why, and no pixels."""

    label: str
    path: Path
    pixels: np.ndarray
    problem: str | None = None


@dataclass(frozen=True)
class Picture:
    """A picture with its path and pixels, uint8 `[H, W, 3]`; `alpha` is its own, where it says anything."""

    path: Path
    pixels: np.ndarray
    alpha: np.ndarray | None

    @property
    def name(self) -> str:
        """Of results: the file's stem; of a file called image.png, its folder's name."""
        folder = self.path.resolve().parent.name
        return folder if self.path.stem.lower() == PICTURE and folder else self.path.stem

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.pixels.shape[0], self.pixels.shape[1]


def example_directory(name: str) -> Path:
    """Folder of a bundled example: of the source tree, or inside the installed package.

    Raises:
        UserError: it is missing.
    """
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "examples" / name, package.parent / "examples" / name):
        if (folder / "image.png").is_file():
            return folder
    raise UserError(f"the bundled example {name!r} is missing from this installation: give a picture of your own.")


def read_picture(path: str | Path) -> Picture:
    """A picture file; of a folder, the `image.*` in it.

    Raises:
        UserError: missing or unreadable, or no image.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        path = _in_folder(path)
    image = open_image(path, "picture")
    # Cameras store the sensor's orientation and a note how to turn it; masks are drawn on what viewers show.
    image = ImageOps.exif_transpose(image)
    alpha = _alpha(image)
    return Picture(path, _rgb(image), alpha)


def picture_in(folder: str | Path) -> Picture:
    """The `image.*` of a folder.

    Raises:
        UserError: no such folder, or no picture in it.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder. Give one with image.png and its masks 0.png, 1.png, ...")
    return read_picture(folder)


def read_mask(path: str | Path, picture: Picture, label: str | None = None) -> Mask:
    """A mask file: its alpha channel where that says anything, else its brightness; of an `.npy` file, its numbers.

    Raises:
        UserError: missing or unreadable, of another size than the picture, or empty.
    """
    path = Path(path).expanduser()
    if path.suffix.lower() == ARRAY:
        return mask_of(path.stem if label is None else label, path, _mask_array(path), picture)
    image = open_image(path, "mask")
    if image.size != picture.pixels.shape[1::-1] and ImageOps.exif_transpose(image).size == image.size[::-1]:
        image = ImageOps.exif_transpose(image)
    alpha = _alpha(image)
    if alpha is None:
        alpha = _brightness(image, path)
    return mask_of(path.stem if label is None else label, path, alpha, picture)


def doubts(mask: Mask) -> str | None:
    """What is odd about a mask that can be used, for a warning; None where nothing is."""
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


def read_pointmap(choice: str, picture: Picture) -> tuple[np.ndarray | None, Path | None, str | None]:
    """A point map by the setting `pointmap`: `auto`, `none` or a file.

    Returns:
        (fp32 `[H, W, 3]` or None, its file or None, why one beside the picture is not used or None).

    Raises:
        UserError: a file that was asked for is missing, unreadable or does not fit the picture.
    """
    if choice in ("none", "null", "None"):
        return None, None, None
    path = picture.path.parent / POINTMAP if choice == "auto" else Path(choice).expanduser()
    if choice == "auto" and not path.is_file():
        return None, None, None
    from fastsam3d.pipeline.preprocessing import as_pointmap

    try:
        points = _load_points(path)
        try:
            known = as_pointmap(points, *picture.size)
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
        if not bool(known.isfinite().any()):
            raise UserError(f"{path} holds no finite point. Compute it again, or give --pointmap none.")
    except UserError as error:
        if choice != "auto":
            raise
        return None, None, f"the point map beside the picture is not used: {error}"
    return points, path, None


def _load_points(path: Path) -> np.ndarray:
    if not path.is_file():
        raise UserError(f"there is no point map {path}. Give an .npy file, or --pointmap none.")
    return load_numbers(path, f"the point map {path}").astype(np.float32)


def load_numbers(path: Path, what: str) -> np.ndarray:
    """An `.npy` file of bool, whole numbers or floating point.

    Args:
        what: it is called in messages.

    Raises:
        UserError: missing, unreadable, or of something else than numbers.
    """
    if not path.is_file():
        raise UserError(f"{what} does not exist. Check the path.")
    try:
        values = np.load(path, allow_pickle=False)
    except OSError as error:
        raise UserError(f"{what} cannot be read ({error.strerror or error}).") from None
    except (ValueError, EOFError):  # numpy's own message advises to run what a stranger's file says
        raise UserError(f"{what} cannot be read as an array of numbers. Save it with numpy.save.") from None
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "buif":
        raise UserError(f"{what} holds {getattr(values, 'dtype', 'several arrays')}: give one array of numbers.")
    return values


def _mask_array(path: Path) -> np.ndarray:
    values = np.squeeze(load_numbers(path, f"the mask {path}"))
    if values.ndim != 2:
        raise UserError(f"the mask {path} has the shape {values.shape}: give bool or numbers [H, W].")
    if not np.isfinite(values).all():
        raise UserError(f"the mask {path} holds values that are not finite: give bool or numbers [H, W].")
    return values


def _in_folder(folder: Path) -> Path:
    for suffix in SUFFIXES:
        if (folder / f"{PICTURE}{suffix}").is_file():
            return folder / f"{PICTURE}{suffix}"
    raise UserError(f"{folder} has no image.png. Give the picture's file, or put it there under that name.")


def open_image(path: Path, what: str) -> Image.Image:
    """An image file, read as a whole.

    Args:
        what: it is called in messages.

    Raises:
        UserError: missing, too large, or unreadable.
    """
    if not path.exists():
        beside = sorted(file.name for file in path.parent.glob("*") if file.suffix.lower() in SUFFIXES)
        way_out = suggestion(path.name, beside) if beside else "Check the path."
        raise UserError(f"the {what} {path} does not exist. {way_out}")
    if path.is_dir():
        raise UserError(f"the {what} {path} is a folder. Give the file.")
    try:
        with warnings.catch_warnings():
            # Photos of a hundred megapixels are no attack; what is twice as large is refused below.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(path)
        image.load()
        return image
    except Image.DecompressionBombError:
        raise UserError(f"the {what} {path} is too large to be opened safely. Make it smaller.") from None
    except UnidentifiedImageError:
        raise UserError(f"the {what} {path} is not an image that can be read; use PNG or JPEG.") from None
    except OSError as error:
        reason = error.strerror or _first_line(error)
        raise UserError(f"the {what} {path} cannot be read ({reason}). Save it again as PNG.") from None
    except (SyntaxError, ValueError) as error:
        raise UserError(f"the {what} {path} cannot be read ({_first_line(error)}). Save it again as PNG.") from None


def _rgb(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I") or image.mode == "F":
        grey = np.asarray(image, dtype=np.float64)
        top = 65535.0 if grey.max() > 255 else 255.0
        return np.repeat(np.clip(np.rint(grey / top * 255), 0, 255).astype(np.uint8)[..., None], 3, axis=2)
    return np.array(image.convert("RGB"))


def _alpha(image: Image.Image) -> np.ndarray | None:
    """The alpha channel, unless there is none or all of it is opaque."""
    if not (image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info):
        return None
    alpha = np.asarray(image.convert("RGBA"))[..., 3]
    return None if (alpha == 255).all() else alpha


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


def mask_of(label: str, path: Path, values: np.ndarray, picture: Picture) -> Mask:
    """The mask of bool or numbers `[H, W]`: what is above half of the largest, or of scores with a sign, above zero.

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

    from fastsam3d.pipeline.preprocessing import crop_box

    try:
        crop_box(torch.from_numpy(inside))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
