"""Opens picture files of a short list of formats, and turns every kind of pixel into 8-bit sRGB.

`open_image_file` is the only function that calls `PIL.Image.open`. Without a list of formats Pillow looks at the
contents only, and an EPS file with the name image.png would start Ghostscript.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "BMP", "DIB", "TIFF", "GIF", "PPM", "AVIF", "QOI", "JPEG2000", "HEIF")
"""Formats of Pillow that are read. Pillow or a library decodes them; none of them starts a program."""
MODEL_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
"""Formats of textures."""
MOST_TEXTURE_PIXELS = 1 << 26
"""Largest number of pixels of one texture: 8192 x 8192."""
RANGES = (255, 1023, 4095, 16383, 65535)
"""Largest values of 8, 10, 12, 14 and 16 bits."""
HEIC = "its format is HEIC, which needs the package pillow-heif: pip install pillow-heif. Or save it as PNG or JPEG"
_HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")
_DARK = 16


class NeedsHeif(ValueError):
    """The file is a HEIC file, and no package that reads HEIC is installed."""


def open_image_file(
    source: Path | bytes, formats: tuple[str, ...] = FORMATS, most_pixels: int | None = None
) -> Image.Image:
    """Opens a picture: its header is read, its pixels are not read yet.

    Args:
        source: a regular file, or its bytes.
        formats: Pillow's names of formats; formats that this Pillow does not have are ignored.
        most_pixels: more pixels raise ValueError; None: Pillow's own limit.

    Raises:
        NeedsHeif: the file is HEIC and cannot be read here. Other errors are those of Pillow.
    """
    from PIL import Image

    if isinstance(source, bytes):
        start = source[:12]
    else:
        with source.open("rb") as file:
            start = file.read(12)
    if "HEIF" in formats and start[4:8] == b"ftyp" and start[8:12] in _HEIC_BRANDS and not _register_heif():
        raise NeedsHeif(HEIC)
    Image.init()
    with warnings.catch_warnings():
        # Photos of a hundred megapixels are normal files; Pillow itself refuses pictures of twice that size.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        known = [name for name in formats if name in Image.OPEN]
        image = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=known)
    if image.format == "TIFF":
        # Without a file name Pillow reads the pixels. With one it maps an uncompressed file into memory, and up to 12.3
        # it then takes the width for the height if an orientation tag exchanges them: the pixels are mixed up.
        image.filename = ""  # type: ignore[attr-defined,unused-ignore]
    if most_pixels is not None and image.width * image.height > most_pixels:
        size = f"{image.width} x {image.height}"
        image.close()
        raise ValueError(f"a picture of {size} pixels is too large; up to {most_pixels / 1e6:.0f} megapixels are read")
    return image


def _register_heif() -> bool:
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def texture_pixels(data: bytes) -> np.ndarray:
    """Reads the pixels of a texture's file, uint8 `[H, W, 3]`.

    Raises:
        ValueError: it is larger than `MOST_TEXTURE_PIXELS`. Other errors are those of Pillow.
    """
    with open_image_file(data, MODEL_FORMATS, MOST_TEXTURE_PIXELS) as image:
        image.load()
        return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def rgb_pixels(image: Image.Image) -> tuple[np.ndarray, tuple[str, ...]]:
    """Returns the pixels of a picture of any mode as sRGB, uint8 `[H, W, 3]`, and doubts about them.

    A colour profile is applied. Numbers of more than 8 bits and floating point are scaled by the smallest range that
    holds them all: 0..1 (floating point), 8, 10, 12, 14 or 16 bits.
    """
    if image.mode.startswith("I") or image.mode == "F":
        grey, doubts = scaled_grey(np.asarray(image))
        return np.repeat(grey[..., None], 3, axis=2), doubts
    converted, doubts = _in_srgb(image)
    pixels = np.array(converted.convert("RGB"))
    if pixels.size and 0 < pixels.max() < _DARK:
        doubts += (f"is nearly black: its brightest value is {pixels.max()} of 255. Were its numbers scaled?",)
    return pixels, doubts


def scaled_grey(values: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Converts numbers of any range to 8-bit grey, uint8 of the same shape; returns it with doubts about it."""
    floating = values.dtype.kind == "f"
    numbers = np.asarray(values, dtype=np.float64)
    known = np.isfinite(numbers)
    doubts: tuple[str, ...] = ()
    if not known.all():
        doubts += (f"has {int((~known).sum())} pixels that are no number; they are taken as black.",)
        numbers = np.where(known, numbers, 0.0)
    highest = float(numbers.max()) if numbers.size else 0.0
    if numbers.size and numbers.min() < 0:
        doubts += (f"has values below zero, down to {numbers.min():.4g}; they are taken as black.",)
    ranges = (1, *RANGES) if floating else RANGES
    top = next((float(limit) for limit in ranges if highest <= limit), highest)
    if floating and 1.0 < highest <= 16.0:
        doubts += (f"has numbers up to {highest:.4g}, read as 0..255 and so nearly black. Scale it to 0..1.",)
    elif top > 65535 or (not floating and 255 < top < 65535):
        doubts += (f"has numbers up to {highest:.6g}, read as 0..{top:.6g}. Scale it to 8 bits if that is wrong.",)
    return np.clip(np.rint(numbers / top * 255), 0, 255).astype(np.uint8), doubts


def _in_srgb(image: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    """Converts a picture to sRGB by its own colour profile. Without a profile, or with sRGB, it stays as it is."""
    from PIL import ImageCms

    profile = image.info.get("icc_profile")
    if image.mode == "LAB":
        source: Any = ImageCms.createProfile("LAB")
    elif profile and image.mode in ("RGB", "RGBA", "L", "LA", "CMYK", "P", "PA"):
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if "srgb" in ImageCms.getProfileDescription(source).lower():
                return image, ()
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            return image, ("has a colour profile that cannot be read; its colours are taken as sRGB.",)
    else:
        return image, ()
    if image.mode in ("RGBA", "P", "PA"):
        image = image.convert("RGB")  # alpha is read separately
    elif image.mode == "LA":
        image = image.convert("L")
    try:
        converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image, ("has a colour profile that does not fit its pixels; its colours are taken as sRGB.",)
    assert converted is not None
    return converted, ()
