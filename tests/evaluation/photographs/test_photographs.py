"""Photographs inside packages: a stand-in package on disk, masks by hand, and the shipped outlines."""

from __future__ import annotations

import bz2
import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastsam3d.evaluation.photographs.photographs import (
    DrawnObject,
    Missing,
    Photograph,
    drawn_mask,
    find_objects,
    load_image,
    photographs,
)

HALF = DrawnObject("left half", (((0, 0), (0.5, 0), (0.5, 1), (0, 1)),))
PIXELS = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)


@pytest.fixture
def installed(tmp_path: Path) -> tuple[Path, Photograph]:
    """A folder with an installed package, and the photograph in it."""
    (tmp_path / "pictures_stand_in").mkdir()
    file = tmp_path / "pictures_stand_in" / "one.png"
    Image.fromarray(PIXELS).save(file)
    info = tmp_path / "pictures_stand_in-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pictures-stand-in\nVersion: 1.0\n")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return tmp_path, Photograph(
        *("one", "pictures-stand-in", "pictures_stand_in/one.png", "picture", 6, 4, digest),
        *("made for a test", "MIT", "photograph", (HALF,)),
    )


def test_a_picture_is_found_without_importing_its_package(installed: tuple[Path, Photograph]) -> None:
    folder, photograph = installed
    assert (load_image(photograph, folder) == PIXELS).all()  # the package has no module at all
    assert photograph.mask(HALF).tolist() == [[True] * 3 + [False] * 3] * 4


def test_what_cannot_be_had_has_a_reason(installed: tuple[Path, Photograph]) -> None:
    folder, photograph = installed
    with pytest.raises(Missing, match="pictures-stand-in is not installed: pip install"):
        load_image(photograph)
    with pytest.raises(Missing, match=r"is installed without this file: .* pictures-stand-in==0.9"):
        load_image(replace(photograph, file="pictures_stand_in/two.png", version="0.9"), folder)
    with pytest.raises(Missing, match="is another picture"):
        load_image(replace(photograph, sha256="0" * 64), folder)
    with pytest.raises(Missing, match="was decoded to the shape"):
        load_image(replace(photograph, width=7), folder)


def test_raw_pixels_are_decompressed_to_their_size_and_no_farther(installed: tuple[Path, Photograph]) -> None:
    folder, photograph = installed
    file = folder / "pictures_stand_in" / "raw.dat"
    for extra, fits in ((b"", True), (b"more" * 10, False)):
        file.write_bytes(bz2.compress(PIXELS.tobytes() + extra))
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        raw = replace(photograph, kind="bzip2", file="pictures_stand_in/raw.dat", sha256=digest)
        assert (load_image(raw, folder) == PIXELS).all()  # what lies behind is never unpacked
        small = replace(raw, height=5)
        if fits:
            with pytest.raises(Missing, match="decoded to the shape"):
                load_image(small, folder)


def test_masks_follow_the_polygons_and_their_holes() -> None:
    """Of 8 x 8 pixels: a square of 4 x 4 less one quarter of it; half-covered pixels count, less covered do not."""
    square = ((0.25, 0.25), (0.75, 0.25), (0.75, 0.75), (0.25, 0.75))
    hole = ((0.5, 0.5), (0.75, 0.5), (0.75, 0.75), (0.5, 0.75))
    mask = drawn_mask(DrawnObject("square", (square,), (hole,)), 80, 80)
    expected = np.zeros((80, 80), dtype=bool)
    expected[20:60, 20:60] = True
    expected[40:60, 40:60] = False
    assert (mask ^ expected).sum() <= 2 * 80  # the drawn line is a subpixel wide
    two = DrawnObject(
        "two", (((0, 0), (0.1, 0), (0.1, 0.1), (0, 0.1)), ((0.5, 0.5), (0.6, 0.5), (0.6, 0.6), (0.5, 0.6)))
    )
    both = drawn_mask(two, 40, 40)
    assert both[1, 1] and both[21, 21] and not both[10, 10]


def test_the_shipped_outlines_are_usable() -> None:
    rows = [(photograph, item) for photograph in photographs() for item in photograph.objects]
    assert len(rows) >= 24 and len({(photograph.name, item.name) for photograph, item in rows}) == len(rows)
    for photograph, item in rows:
        assert photograph.kind in ("picture", "bzip2", "video") and photograph.licence and photograph.source
        assert photograph.licence_of in ("photograph", "package") and len(photograph.sha256) == 64
        for polygon in (*item.polygons, *item.holes):
            assert len(polygon) >= 4 and all(0 <= value <= 1 for corner in polygon for value in corner)
        assert 0.01 < photograph.mask(item).mean() < 0.8, (photograph.name, item.name)


def test_objects_of_packages_that_are_here_are_loaded_and_others_say_why() -> None:
    """Whichever packages this environment has."""
    found = list(find_objects())
    assert len(found) == sum(len(photograph.objects) for photograph in photographs())
    for row in found:
        size = row.photograph.height, row.photograph.width
        if row.image is None:
            assert row.mask is None and row.photograph.package in row.reason
        else:
            assert row.image.shape == (*size, 3) and row.mask is not None and row.mask.shape == size and not row.reason
    assert {"coffee: cup", "flower"} <= {row.name for row in found}
