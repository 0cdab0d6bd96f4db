"""Pixels of every kind of picture, and pictures that are none."""

from __future__ import annotations

import contextlib
import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from fastsam3d.basics.picture_files import open_image_file, rgb_pixels, scaled_grey
from fastsam3d.basics.pixels import as_image
from fastsam3d.errors import UserError
from fastsam3d.jobs.pictures import load_numbers, read_picture

DISPLAY_P3 = ((0.51512, 0.2412, -0.00105), (0.29198, 0.69225, 0.04189), (0.1571, 0.06657, 0.78407))
"""Colours of the primaries of Display P3 under D50, as its profile has them."""


def profile(primaries: tuple[tuple[float, float, float], ...], gamma: float = 2.2) -> bytes:
    """An ICC profile of version 2 with three primaries and a power law."""

    def number(value: float) -> bytes:
        return struct.pack(">i", round(value * 65536))

    name = b"wide test profile\0"
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(name)) + name + b"\0" * 78,
        b"cprt": b"text\0\0\0\0none\0",
        b"wtpt": b"XYZ \0\0\0\0" + b"".join(number(value) for value in (0.9642, 1.0, 0.8249)),
        **{
            tag: b"XYZ \0\0\0\0" + b"".join(number(value) for value in row)
            for tag, row in zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries, strict=True)
        },
        **{tag: b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) for tag in (b"rTRC", b"gTRC", b"bTRC")},
    }
    table, body, place = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for tag, data in tags.items():
        data += b"\0" * (-len(data) % 4)
        table += tag + struct.pack(">II", place + len(body), len(data))
        body += data
    size = place + len(body)
    head = struct.pack(">I4sI4s4s4s", size, b"\0" * 4, 0x02100000, b"mntr", b"RGB ", b"XYZ ")
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + b"\0" * 28
    head += b"".join(number(value) for value in (0.9642, 1.0, 0.8249))
    return head.ljust(128, b"\0") + table + body


def test_a_wide_profile_is_followed(tmp_path: Path) -> None:
    """Red of sRGB is (0.9175, 0.2003, 0.1386) in Display P3, there with the curve of sRGB, here with a power law."""
    Image.new("RGBA", (8, 8), (234, 51, 35, 255)).save(tmp_path / "a.png", icc_profile=profile(DISPLAY_P3))
    pixels = read_picture(tmp_path / "a.png").pixels
    assert np.abs(pixels[0, 0].astype(int) - [255, 0, 0]).max() <= 12
    plain = Image.new("RGB", (8, 8), (234, 51, 35))
    plain.save(tmp_path / "b.png")
    assert read_picture(tmp_path / "b.png").pixels[0, 0].tolist() == [234, 51, 35]
    with Image.open(tmp_path / "a.png") as image:
        assert np.array_equal(as_image(image), pixels)


def test_srgb_and_damaged_profiles_change_nothing(tmp_path: Path) -> None:
    own = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for name, icc, doubts in (("srgb", own, 0), ("damaged", b"no profile at all", 1)):
        Image.new("RGB", (8, 8), (200, 40, 41)).save(tmp_path / f"{name}.png", icc_profile=icc)
        picture = read_picture(tmp_path / f"{name}.png")
        assert picture.pixels[0, 0].tolist() == [200, 40, 41] and len(picture.doubts) == doubts


def test_modes_of_pillow_mean_their_colours() -> None:
    red = Image.new("RGB", (4, 4), (255, 0, 0))
    for mode in ("P", "CMYK", "HSV", "RGBA", "YCbCr"):
        assert np.abs(as_image(red.convert(mode))[0, 0].astype(int) - [255, 0, 0]).max() <= 1, mode
    assert as_image(Image.new("LA", (4, 4), (7, 200)))[0, 0].tolist() == [7, 7, 7]
    assert as_image(Image.new("1", (4, 4), 1))[0, 0].tolist() == [255, 255, 255]
    # Lightness 53.6, a 80, b 67 is close to the red of sRGB.
    lab = Image.merge("LAB", [Image.new("L", (4, 4), value) for value in (137, 128 + 80, 128 + 67)])
    assert np.abs(as_image(lab)[0, 0].astype(int) - [255, 0, 0]).max() <= 20
    assert as_image(Image.fromarray(np.full((4, 4), 32768, np.uint16)))[0, 0].tolist() == [128, 128, 128]


@pytest.mark.parametrize(
    ("values", "expected", "doubt"),
    [
        (np.array([[0.0, 0.5, 1.0]], np.float32), [0, 128, 255], None),
        (np.array([[0.0, 128.0, 255.0]], np.float32), [0, 128, 255], None),
        (np.array([[0.0, 2.0, 4.0]], np.float32), [0, 2, 4], "nearly black"),
        (np.array([[0.0, np.nan, 1.0]], np.float32), [0, 0, 255], "1 pixels"),
        (np.array([[-1.0, 0.5, 1.0]], np.float32), [0, 128, 255], "below zero"),
        (np.array([[0, 2048, 4000]], np.uint16), [0, 128, 249], "0..4095"),
        (np.array([[0, 512, 1000]], np.uint16), [0, 128, 249], "0..1023"),
        (np.array([[0, 32768, 65535]], np.uint16), [0, 128, 255], None),
        (np.array([[0, 128, 255]], np.int32), [0, 128, 255], None),
    ],
)
def test_numbers_are_scaled_by_the_range_that_is_evident(values, expected, doubt) -> None:
    grey, doubts = scaled_grey(values)
    assert grey[0].tolist() == expected
    assert (doubt is None and doubts == ()) or any(doubt in text for text in doubts)


def test_a_float_picture_is_no_black_one(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8), 0.5, np.float32)).save(tmp_path / "a.tif")
    picture = read_picture(tmp_path / "a.tif")
    assert picture.pixels[0, 0].tolist() == [128, 128, 128] and picture.doubts == ()


def test_a_nearly_black_picture_is_doubted() -> None:
    _, doubts = rgb_pixels(Image.new("RGB", (4, 4), (9, 8, 7)))
    assert "nearly black" in doubts[0]


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EndComments\nshowpage\n"


@pytest.mark.parametrize("name", ["image.png", "image.jpg", "image.tif"])
def test_postscript_starts_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def started(*_words: object, **_more: object) -> None:
        raise AssertionError("a program was started")

    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", started)
    monkeypatch.setattr("subprocess.check_call", started)
    (tmp_path / name).write_bytes(POSTSCRIPT)
    with pytest.raises(UserError, match="not an image that can be read"):
        read_picture(tmp_path / name)
    with pytest.raises(OSError, match="cannot identify"):
        open_image_file(POSTSCRIPT)


def test_no_other_module_opens_pictures() -> None:
    root = Path(__file__).resolve().parents[2] / "fastsam3d"
    found = [path.name for path in root.rglob("*.py") if "Image.open(" in path.read_text(encoding="utf-8")]
    assert found == ["picture_files.py"]


def damaged(kind: str) -> bytes:
    """A picture whose header is right and whose pixels are cut or nonsense."""
    data = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    if kind == "qoi":
        return b"qoif" + struct.pack(">II", 32, 32) + b"\3\0" + b"\xfe\x01"
    Image.fromarray(noise).save(data, kind)
    content = data.getvalue()
    return content[: len(content) // 2] + bytes(len(content) // 4)


@pytest.mark.parametrize("kind", ["qoi", "png", "jpeg", "webp", "tiff", "gif", "avif"])
def test_damaged_pictures_are_a_sentence(tmp_path: Path, kind: str) -> None:
    Image.init()
    if kind.upper() not in Image.OPEN or (kind != "qoi" and kind.upper() not in Image.SAVE):
        pytest.skip(f"this Pillow lacks {kind}")
    (tmp_path / "a.png").write_bytes(damaged(kind))
    with contextlib.suppress(UserError):  # some decoders fill up what is missing
        assert read_picture(tmp_path / "a.png").pixels.dtype == np.uint8


def test_heic_without_its_package_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    (tmp_path / "image.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(64))
    with pytest.raises(UserError, match="pip install pillow-heif"):
        read_picture(tmp_path)


def array_file(shape: str, kind: str = "<f4", body: bytes = b"") -> bytes:
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text + body


@pytest.mark.parametrize(
    "data",
    [
        array_file("(1000000, 1000000)"),
        array_file("(2, 2)", body=bytes(15)),
        array_file("(-1, 4)", body=bytes(16)),
        array_file(f"({10**30}, {10**30})"),
        array_file("(((((("),
        array_file("4", body=bytes(16)),
        array_file("(2,)", "|O", bytes(16)),
        b"PK\3\4 no archive",
        b"PK\5\6" + bytes(18),
        b"\x93NUMPY\3\0",
        b"\x93NUMPY\7\0" + bytes(32),
        b"",
    ],
)
def test_arrays_that_are_none_are_a_sentence(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.npy").write_bytes(data)
    with pytest.raises(UserError, match=r"the mask (cannot be read|holds)"):
        load_numbers(tmp_path / "a.npy", "the mask")


def test_whole_arrays_are_read(tmp_path: Path) -> None:
    for values in (np.arange(6).reshape(2, 3), np.asfortranarray(np.ones((2, 3), np.float32)), np.zeros((0, 3), bool)):
        np.save(tmp_path / "a.npy", values)
        assert np.array_equal(load_numbers(tmp_path / "a.npy", "the mask"), values)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_oriented_tiff_file_is_turned_once(tmp_path: Path, mode: str, orientation: int) -> None:
    """Files with and without compression hold the same picture: Pillow reads them in different ways."""
    stored = np.zeros((3, 5), dtype=np.uint8)
    stored[0, :2], stored[2, 4] = 255, 255
    # Row and column of the stored pixel that is shown at the upper left, as EXIF defines the tag.
    corner = {1: (0, 0), 2: (0, 4), 3: (2, 4), 4: (2, 0), 5: (0, 0), 6: (2, 0), 7: (2, 4), 8: (0, 4)}[orientation]
    along_rows = orientation >= 5
    rows = range(3) if corner[0] == 0 else range(2, -1, -1)
    columns = range(5) if corner[1] == 0 else range(4, -1, -1)
    expected = [[stored[r, c] for r in rows] for c in columns] if along_rows else stored[np.ix_(rows, columns)].tolist()
    exif = Image.Exif()
    exif[0x0112] = orientation
    for number, more in enumerate(({}, {"compression": "tiff_lzw"})):
        path = tmp_path / f"{number}.tif"
        Image.fromarray(stored).convert(mode).save(path, exif=exif, **more)
        picture = read_picture(path)
        assert picture.pixels[..., 0].tolist() == expected
        assert picture.orientation == orientation


@pytest.mark.parametrize("suffix", ["png", "webp", "jpg"])
def test_damaged_exif_data_are_no_obstacle(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"image.{suffix}"
    Image.new("RGB", (8, 6), (9, 200, 90)).save(path, exif=b"Exif\0\0no header of TIFF")
    picture = read_picture(path)
    assert picture.size == (6, 8) and picture.orientation == 1
