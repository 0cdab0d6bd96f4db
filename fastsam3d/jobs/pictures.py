"""Picture files and arrays, with errors that name the file and the way out."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from fastsam3d.basics.suggestions import suggestion
from fastsam3d.errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
ARRAY = ".npy"
ORIENTATION = 0x0112
"""EXIF's number of the orientation tag."""
PICTURE = "image"
"""Stem of the picture of a folder."""


@dataclass(frozen=True)
class Picture:
    """A picture with its path and pixels, uint8 `[H, W, 3]`, upright; `alpha` is its own, where it says anything.

    `orientation` is the tag that it was turned by, as EXIF numbers it: 1 where it lies in the file as it is shown.
    """

    path: Path
    pixels: np.ndarray
    alpha: np.ndarray | None
    orientation: int = 1

    @property
    def name(self) -> str:
        """Of results: the file's stem; of a file called image.png, its folder's name."""
        # Of the folder that it is in, also where it is a link to a store of files with other names.
        folder = self.path.parent.resolve().name
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
    orientation = orientation_of(image)
    image = ImageOps.exif_transpose(image)
    alpha = alpha_of(image)
    return Picture(path, _rgb(image), alpha, orientation)


def picture_in(folder: str | Path) -> Picture:
    """The `image.*` of a folder.

    Raises:
        UserError: no such folder, or no picture in it.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder. Give one with image.png and its masks 0.png, 1.png, ...")
    return read_picture(folder)


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


def orientation_of(image: Image.Image) -> int:
    """The orientation tag of a picture, 1 to 8 as EXIF numbers them; 1 without a valid one."""
    value = image.getexif().get(ORIENTATION, 1)
    return value if value in range(1, 9) else 1


def turned(values: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels `[H, W, ...]` as a viewer shows them that follows an orientation tag."""
    if orientation in (5, 7):
        values = values.swapaxes(0, 1)
    flips = {2: (1,), 3: (0, 1), 4: (0,), 7: (0, 1)}.get(orientation, ())
    quarters = {6: -1, 8: 1}.get(orientation, 0)
    return np.ascontiguousarray(np.rot90(np.flip(values, flips) if flips else values, quarters))


def _rgb(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I") or image.mode == "F":
        grey = np.asarray(image, dtype=np.float64)
        top = 65535.0 if grey.max() > 255 else 255.0
        return np.repeat(np.clip(np.rint(grey / top * 255), 0, 255).astype(np.uint8)[..., None], 3, axis=2)
    return np.array(image.convert("RGB"))


def alpha_of(image: Image.Image) -> np.ndarray | None:
    """The alpha channel, unless there is none or it is the same everywhere (and not empty)."""
    if not (image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info):
        return None
    alpha = np.asarray(image.convert("RGBA"))[..., 3]
    # The same everywhere, it says nothing; empty, it says that nothing is there.
    return None if alpha.min() == alpha.max() > 0 else alpha


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
