"""Uploads: what is taken, what is refused, and that messages name no folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastsam3d.app.server.uploads import Limits, read_upload, read_uploaded_mask
from fastsam3d.errors import UserError

LIMITS = Limits(file_bytes=100_000, pixels=100_000, side=128)


def save(path: Path, image: Image.Image) -> Path:
    image.save(path)
    return path


def test_a_picture_is_read_and_a_large_one_made_smaller(tmp_path: Path) -> None:
    picture, note = read_upload(save(tmp_path / "a.png", Image.new("RGB", (100, 60), "red")), LIMITS)
    assert picture.size == (60, 100) and note is None
    picture, note = read_upload(save(tmp_path / "b.png", Image.new("RGBA", (256, 200), (9, 9, 9, 0))), LIMITS)
    assert picture.size == (100, 128) and picture.alpha.shape == (100, 128)
    assert note is not None and "256 x 200 to 128 x 100" in note


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("notes.png", b"this is text", "no picture that can be read"),
        ("empty.jpg", b"", "no picture that can be read"),
        ("page.svg", b"<svg xmlns='http://www.w3.org/2000/svg'><script/></svg>", "no picture that can be read"),
        ("cut.png", None, "cannot be read"),
        ("heavy.png", b"0" * 100_001, "MiB"),
    ],
)
def test_what_is_no_picture_is_refused_without_naming_its_folder(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    path = tmp_path / name
    if content is None:
        noise = np.random.default_rng(0).integers(0, 255, (90, 90, 3), dtype=np.uint8)
        save(path, Image.fromarray(noise))
        path.write_bytes(path.read_bytes()[:9000])
    else:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read_upload(path, LIMITS)
    assert name in str(caught.value) and str(tmp_path) not in str(caught.value)


def test_size_is_checked_before_anything_is_decoded(tmp_path: Path) -> None:
    """A header that promises 30000 x 30000 pixels and holds none of them."""
    path = save(tmp_path / "bomb.png", Image.new("1", (8, 8)))
    data = bytearray(path.read_bytes())
    data[16:24] = (30_000).to_bytes(4, "big") * 2
    import zlib

    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    path.write_bytes(bytes(data))
    with pytest.raises(UserError, match=r"megapixels|no picture"):
        read_upload(path, LIMITS)
    with pytest.raises(UserError, match="only 8 x 8"):
        read_upload(save(tmp_path / "tiny.png", Image.new("RGB", (8, 8))), LIMITS)


def test_masks_fit_the_picture_as_uploaded_or_as_made_smaller(tmp_path: Path) -> None:
    picture, _ = read_upload(save(tmp_path / "p.png", Image.new("RGB", (256, 200))), LIMITS)
    full = Image.new("L", (256, 200))
    full.paste(255, (128, 0, 256, 200))
    mask = read_uploaded_mask(save(tmp_path / "m.png", full), picture, LIMITS).pixels
    assert mask.shape == (100, 128) and mask.dtype == bool
    assert mask[:, 64:].all() and not mask[:, :64].any()
    same = read_uploaded_mask(save(tmp_path / "n.png", full.resize((128, 100))), picture, LIMITS).pixels
    assert same.shape == (100, 128)


def test_a_mask_of_the_raw_pixels_of_a_turned_photo_is_turned(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (200, 100)).save(tmp_path / "p.jpg", exif=exif)
    picture, _ = read_upload(tmp_path / "p.jpg", LIMITS)
    assert picture.size == (128, 64)
    raw = Image.new("L", (200, 100))
    raw.paste(255, (0, 0, 100, 100))  # the left half, which is shown above
    mask = read_uploaded_mask(save(tmp_path / "m.png", raw), picture, LIMITS)
    assert mask.pixels[:64].all() and not mask.pixels[64:].any()
    assert mask.notes == ("the mask m.png is turned as the picture is by its orientation tag (6).",)


def test_unusable_masks_are_refused(tmp_path: Path) -> None:
    picture, _ = read_upload(save(tmp_path / "p.png", Image.new("RGB", (100, 60))), LIMITS)
    cases = {
        "shape.png": (Image.new("L", (60, 100), 255), "lies on its side"),
        # A photo of nearly the same proportions: stretching it would put the mask beside the object.
        "other.png": (Image.new("L", (300, 176), 255), "another shape"),
        "empty.png": (Image.new("L", (100, 60)), "is empty"),
        "colour.png": (Image.new("RGB", (100, 60), "red"), "without transparency"),
    }
    for name, (image, message) in cases.items():
        with pytest.raises(UserError, match=message) as caught:
            read_uploaded_mask(save(tmp_path / name, image), picture, LIMITS)
        assert str(tmp_path) not in str(caught.value)
