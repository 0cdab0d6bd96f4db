"""Picture files and arrays, with errors that name the file and the way out."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from fastsam3d.basics.paths import require_file, require_folder, user_path
from fastsam3d.basics.picture_files import NeedsHeif, open_image_file, rgb_pixels
from fastsam3d.basics.suggestions import suggestion
from fastsam3d.errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
MORE_SUFFIXES = (".avif", ".heic", ".heif")
"""Suffixes of pictures, not of masks."""
ARRAY = ".npy"
ORIENTATION = 0x0112
"""EXIF's number of the orientation tag."""
TURNED = "turned_while_loading"
"""Key of `Image.info`: the orientation tag that Pillow has applied itself, as it does for TIFF files."""
PICTURE = "image"
"""Stem of the picture of a folder."""


@dataclass(frozen=True)
class Picture:
    """A picture with its path and pixels, uint8 `[H, W, 3]`, upright.

    Attributes:
        alpha: its alpha channel `[H, W]`; None if it has none, or one non-zero value everywhere.
        orientation: the orientation tag that was applied, as EXIF numbers it: 1 if the pixels were not turned.
        doubts: sentences about unusual properties, for warnings.
    """

    path: Path
    pixels: np.ndarray
    alpha: np.ndarray | None
    orientation: int = 1
    doubts: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Returns the name of the results: the file's stem; for a file called image.png, its folder's name."""
        # The folder of the given path, also if the file is a link to a store of files with other names.
        folder = self.path.parent.resolve().name
        return folder if self.path.stem.lower() == PICTURE and folder else self.path.stem

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.pixels.shape[0], self.pixels.shape[1]


def example_directory(name: str) -> Path:
    """Returns the folder of a bundled example: in the source tree, or inside the installed package.

    Raises:
        UserError: the example is missing.
    """
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "examples" / name, package.parent / "examples" / name):
        if (folder / "image.png").is_file():
            return folder
    raise UserError(f"the bundled example {name!r} is missing from this installation: give a picture of your own.")


def read_picture(path: str | Path) -> Picture:
    """Reads a picture file; in a folder, the file `image.*`.

    Raises:
        UserError: it is missing or unreadable, or is no image.
    """
    path = user_path(path)
    if path.is_dir():
        path = _in_folder(path)
    image = open_image(path, "picture")
    # Cameras store the sensor's pixels with a tag that says how to turn them. Masks are drawn on the turned picture.
    orientation = orientation_of(image)
    alpha = alpha_of(image)
    pixels, doubts = rgb_pixels(image)
    told = tuple(f"the picture {path} {text}" for text in doubts)
    return Picture(
        path,
        turned(pixels, orientation),
        None if alpha is None else turned(alpha, orientation),
        image.info.get(TURNED, orientation),
        told,
    )


def picture_in(folder: str | Path) -> Picture:
    """Reads the picture `image.*` of a folder.

    Raises:
        UserError: the folder does not exist, or there is no picture in it.
    """
    folder = user_path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder. Give one with image.png and its masks 0.png, 1.png, ...")
    return read_picture(folder)


def load_numbers(path: Path, what: str) -> np.ndarray:
    """Reads an `.npy` file of bool, whole numbers or floating point.

    Args:
        what: name of the file in messages.

    Raises:
        UserError: it is missing, unreadable, or does not hold numbers.
    """
    require_file(path, what)
    try:
        check_array_file(path)
        values = np.load(path, allow_pickle=False)
    except OSError as error:
        raise UserError(f"{what} cannot be read ({error.strerror or error}).") from None
    except Exception:  # numpy raises many kinds, and its message advises to allow code from the file
        raise UserError(f"{what} cannot be read as an array of numbers. Save it with numpy.save.") from None
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "buif":
        raise UserError(f"{what} holds {getattr(values, 'dtype', 'several arrays')}: give one array of numbers.")
    return values


def check_array_file(path: Path) -> None:
    """Refuses an `.npy` file that is smaller than its header says, before memory is allocated for the numbers.

    Raises:
        ValueError: the file is too small, or does not hold numbers.
    """
    with path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        shape, _, kind = read(file)
        held = path.stat().st_size - file.tell()
    if kind.kind not in "buif":
        return  # refused by its type
    if len(shape) > 32 or min(shape, default=0) < 0 or math.prod(shape) * kind.itemsize > held:
        raise ValueError("the header promises more than the file holds")


def file_called(folder: Path, stem: str, suffixes: Sequence[str], other_than: str = "") -> Path | None:
    """Finds the file of a folder with this stem and one of the suffixes, the first of them that there is.

    The case of a suffix does not matter: cameras write `.JPG`. A suffix as it is given here comes before others.

    Args:
        other_than: name of a file that is not meant.
    """
    named = (path for path in folder.iterdir() if path.stem == stem and path.name != other_than)
    endings = sorted(path.suffix for path in named if path.is_file())
    for suffix in suffixes:
        alike = [ending for ending in endings if ending.lower() == suffix]
        if alike:
            return folder / f"{stem}{suffix if suffix in alike else alike[0]}"
    return None


def _in_folder(folder: Path) -> Path:
    require_folder(folder)
    found = file_called(folder, PICTURE, (*SUFFIXES, *MORE_SUFFIXES))
    if found is not None:
        return found
    raise UserError(f"{folder} has no image.png. Give the picture's file, or put it there under that name.")


def open_image(path: Path, what: str) -> Image.Image:
    """Reads an image file completely.

    Args:
        what: name of the file in messages.

    Raises:
        UserError: it is missing, too large, or unreadable.
    """
    if not path.exists():
        beside = sorted(file.name for file in path.parent.glob("*") if file.suffix.lower() in SUFFIXES)
        way_out = suggestion(path.name, beside) if beside else "Check the path."
        raise UserError(f"the {what} {path} does not exist. {way_out}")
    if path.is_dir():
        raise UserError(f"the {what} {path} is a folder. Give the file.")
    require_file(path, f"the {what} {path}")
    try:
        image = open_image_file(path)
        tag = orientation_of(image) if image.format == "TIFF" else None
        image.load()
        if tag is not None and orientation_of(image) != tag:  # Pillow has turned the pixels and removed the tag
            image.info[TURNED] = tag
        return image
    except NeedsHeif as error:
        raise UserError(f"the {what} {path} cannot be read: {error}.") from None
    except Image.DecompressionBombError:
        raise UserError(f"the {what} {path} is too large to be opened safely. Make it smaller.") from None
    except UnidentifiedImageError:
        raise UserError(f"the {what} {path} is not an image that can be read; use PNG or JPEG.") from None
    except OSError as error:
        reason = error.strerror or _first_line(error)
        raise UserError(f"the {what} {path} cannot be read ({reason}). Save it again as PNG.") from None
    except Exception as error:  # decoders raise many kinds on a damaged file
        raise UserError(f"the {what} {path} cannot be read ({_first_line(error)}). Save it again as PNG.") from None


def orientation_of(image: Image.Image) -> int:
    """Returns the orientation tag of a picture, 1 to 8 as EXIF numbers them; 1 without a valid one.

    Damaged EXIF data count as none: the pixels do not need them.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = image.getexif().get(ORIENTATION, 1)
    except Exception:  # Pillow raises many kinds on damaged EXIF data
        return 1
    return value if value in range(1, 9) else 1


def turned(values: np.ndarray, orientation: int) -> np.ndarray:
    """Turns pixels `[H, W, ...]` as an orientation tag says."""
    if orientation in (5, 7):
        values = values.swapaxes(0, 1)
    flips = {2: (1,), 3: (0, 1), 4: (0,), 7: (0, 1)}.get(orientation, ())
    quarters = {6: -1, 8: 1}.get(orientation, 0)
    return np.ascontiguousarray(np.rot90(np.flip(values, flips) if flips else values, quarters))


def alpha_of(image: Image.Image) -> np.ndarray | None:
    """Returns the alpha channel; None if there is none, or if it has one value everywhere that is not zero."""
    if not (image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info):
        return None
    alpha = np.asarray(image.convert("RGBA"))[..., 3]
    # An equal value everywhere gives no mask. Zero everywhere is an empty mask, which is an error later.
    return None if alpha.min() == alpha.max() > 0 else alpha


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
