"""Masks and point maps are read as they were meant, or something is said before any work."""

from __future__ import annotations

import io

import numpy as np
import pytest
from ball_pipeline import HEIGHT, WIDTH, disc
from PIL import Image, ImageFilter, ImageOps

from fastsam3d.errors import UserError
from fastsam3d.jobs.mask_sets import read_labels, scene_masks
from fastsam3d.jobs.masks import doubts, read_mask
from fastsam3d.jobs.pictures import read_picture, turned
from fastsam3d.jobs.pointmaps import read_pointmap, unknown_depths
from fastsam3d.jobs.scenes import run_scene


def tagged(image: Image.Image, orientation: int, path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(path, exif=exif)


@pytest.fixture
def picture(vase):
    return read_picture(vase / "image.png")


@pytest.mark.parametrize("name", ["image.JPG", "image.Png"])
def test_the_case_of_an_ending_does_not_matter(name, tmp_path):
    Image.new("RGB", (40, 30)).save(tmp_path / name)
    Image.fromarray(np.repeat(np.uint8([[0, 3]]), 20, 1).repeat(30, 0)).save(tmp_path / "labels.PNG")
    (tmp_path / "image.txt").write_text("no picture")
    found = read_picture(tmp_path)
    assert found.path == tmp_path / name and found.size == (30, 40)
    assert [(mask.label, int(mask.pixels.sum())) for mask in scene_masks(found, None)] == [("3", 600)]
    Image.new("RGB", (8, 8)).save(tmp_path / "image.png")
    assert read_picture(tmp_path).path.name == "image.png"  # as it is written in the documents, and first


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turning_is_what_pillow_does(orientation):
    values = np.arange(12, dtype=np.uint8).reshape(3, 4)
    buffer = io.BytesIO()
    image = Image.fromarray(values)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(buffer, "PNG", exif=exif)
    expected = ImageOps.exif_transpose(Image.open(buffer))
    assert (turned(values, orientation) == np.asarray(expected)).all()


@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_mask_with_a_tag_of_its_own_is_turned(vase, picture, tmp_path, orientation):
    shown = disc(20, 20)
    # The inverse: what lies in the file so that a viewer shows the mask.
    inverse = {6: 8, 8: 6}.get(orientation, orientation)
    stored = turned(shown, inverse)
    tagged(Image.fromarray(stored.astype(np.uint8) * 255), orientation, tmp_path / "m.png")
    mask = read_mask(tmp_path / "m.png", picture)
    assert (mask.pixels == shown).all() and "its own orientation tag" in doubts(mask)[0]


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_a_mask_of_the_raw_pixels_of_a_turned_photo_is_turned_as_the_photo(tmp_path, orientation):
    raw = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    tagged(Image.fromarray(raw), orientation, tmp_path / "photo.png")
    photo = read_picture(tmp_path / "photo.png")
    assert photo.size == (WIDTH, HEIGHT) and photo.orientation == orientation
    inside = disc(20, 20)
    Image.fromarray(inside.astype(np.uint8) * 255).save(tmp_path / "m.png")
    np.save(tmp_path / "m.npy", inside)
    labels = np.where(inside, 3, np.where(disc(26, 50), 5, 0)).astype(np.uint8)
    Image.fromarray(labels).save(tmp_path / "l.png")
    masks = [read_mask(tmp_path / name, photo) for name in ("m.png", "m.npy")] + [
        read_labels(tmp_path / "l.png", photo)[0]
    ]
    for mask in masks:
        assert mask.pixels.shape == photo.size and "turned as the picture is" in doubts(mask)[0]
        assert (mask.pixels == turned(inside, orientation)).all()


def test_a_mask_that_may_lie_the_other_way_is_told_of(tmp_path):
    tagged(Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)), 3, tmp_path / "photo.png")
    photo = read_picture(tmp_path / "photo.png")
    Image.fromarray(disc(20, 20).astype(np.uint8) * 255).save(tmp_path / "m.png")
    mask = read_mask(tmp_path / "m.png", photo)
    assert (mask.pixels == disc(20, 20)).all() and "turn it likewise" in doubts(mask)[0]


def test_the_advice_for_a_mask_on_its_side_is_not_to_resize(picture, tmp_path):
    Image.fromarray(disc(20, 20).T.astype(np.uint8) * 255).save(tmp_path / "m.png")
    with pytest.raises(UserError, match=r"lies on its side.*do not resize"):
        read_mask(tmp_path / "m.png", picture)
    Image.new("L", (50, 48), 255).save(tmp_path / "m.png")
    with pytest.raises(UserError, match="from the same picture"):
        read_mask(tmp_path / "m.png", picture)


def test_a_speck_is_left_out_and_told_of(picture, tmp_path):
    values = disc(20, 20).astype(np.uint8) * 255
    values[46, 62] = 255
    Image.fromarray(values).save(tmp_path / "m.png")
    mask = read_mask(tmp_path / "m.png", picture)
    assert (mask.pixels == disc(20, 20)).all()
    assert doubts(mask) == [f"the mask {tmp_path / 'm.png'} has 1 speck far from the object (1 pixels): left out."]


def label_values() -> np.ndarray:
    return np.where(disc(20, 20), 40, np.where(disc(26, 46), 200, 0)).astype(np.uint8)


@pytest.mark.parametrize("how", ["blurred", "resized", "jpeg"])
def test_smoothed_label_images_are_refused_before_any_work(picture, tmp_path, how):
    image = Image.fromarray(label_values())
    if how == "blurred":
        image = image.filter(ImageFilter.GaussianBlur(1.5))
    elif how == "resized":
        image = image.resize((23, 17), Image.Resampling.NEAREST).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    path = tmp_path / ("labels.jpg" if how == "jpeg" else "labels.png")
    image.save(path)
    with pytest.raises(UserError, match=r"was smoothed|looks like a photograph"):
        read_labels(path, picture)
    Image.fromarray(label_values()).save(tmp_path / "labels.png")
    assert [mask.label for mask in read_labels(tmp_path / "labels.png", picture)] == ["40", "200"]


@pytest.mark.parametrize("kind", ["png", "npy", "palette", "16 bits"])
def test_the_label_that_says_ignore_is_no_object(picture, tmp_path, kind):
    values = np.where(label_values() == 40, 1, np.where(label_values() == 200, 15, 0)).astype(np.uint8)
    values[:, 32:34] = 255
    path = tmp_path / ("l.npy" if kind == "npy" else "l.png")
    if kind == "npy":
        np.save(path, values)
    elif kind == "16 bits":
        Image.fromarray(np.where(values == 255, 65535, values.astype(np.uint16)).astype(np.uint16)).save(path)
    else:
        image = Image.fromarray(values)
        (image.convert("P") if kind == "palette" else image).save(path)
    masks = read_labels(path, picture)
    assert [mask.label for mask in masks] == ["1", "15"]
    assert any("taken for pixels of no object" in text for text in doubts(masks[0])) and not doubts(masks[1])


def test_255_beside_large_labels_is_an_object(picture, tmp_path):
    Image.fromarray(np.where(label_values() == 40, 128, np.where(label_values(), 255, 0)).astype(np.uint8)).save(
        tmp_path / "l.png"
    )
    assert [mask.label for mask in read_labels(tmp_path / "l.png", picture)] == ["128", "255"]


@pytest.mark.parametrize("kind", ["float32", "int32"])
def test_labels_of_32_bits_are_used_as_they_are_stored(picture, tmp_path, kind):
    first, second = disc(20, 20), disc(26, 50)
    labels = np.where(first, 300, np.where(second, 400, -1)).astype(kind)
    Image.fromarray(labels).save(tmp_path / "labels.tif")
    found = read_labels(tmp_path / "labels.tif", picture)
    assert [mask.label for mask in found] == ["300", "400"]
    assert (found[0].pixels == first).all() and (found[1].pixels == second).all()


def test_fractions_are_no_labels(picture, tmp_path):
    Image.fromarray(np.where(disc(20, 20), 0.5, 0).astype(np.float32)).save(tmp_path / "labels.tif")
    with pytest.raises(UserError, match="give whole numbers"):
        read_labels(tmp_path / "labels.tif", picture)


@pytest.mark.parametrize("suffix", ["tif", "gif", "png"])
def test_every_page_of_a_file_is_a_mask(picture, tmp_path, suffix):
    pages = [Image.fromarray(inside.astype(np.uint8) * 255) for inside in (disc(20, 20), disc(26, 46), disc(24, 32))]
    path = tmp_path / f"masks.{suffix}"
    pages[0].save(path, save_all=True, append_images=pages[1:])
    masks = scene_masks(picture, str(path))
    assert [mask.label for mask in masks] == ["0", "1", "2"]
    assert all((mask.pixels == (np.asarray(page) > 0)).all() for mask, page in zip(masks, pages, strict=True))
    with pytest.raises(UserError, match=r"has 3 pages.*infer_scene --masks"):
        read_mask(path, picture)


def test_superscript_digits_are_a_name(ask, vase, tmp_path):
    masks = tmp_path / "masks"
    masks.mkdir()
    Image.fromarray(disc(20, 20).astype(np.uint8) * 255).save(masks / "\u00b2.png")
    result = run_scene(ask("o", image_path=str(vase), masks=str(masks), batch=1))
    assert [item["name"] for item in result.report["objects"]] == ["\u00b2"]


def wall() -> np.ndarray:
    points = np.ones((HEIGHT, WIDTH, 3), dtype=np.float32)
    points[..., 0], points[..., 1] = np.linspace(0.5, -0.5, WIDTH), np.linspace(0.4, -0.4, HEIGHT)[:, None]
    return points


def test_unknown_points_are_told_of_once(vase, picture):
    points = wall()
    points[:5], points[5:6], points[6:7, :, 2], points[7, 0] = 0, -np.inf, -2, 1e12
    np.save(vase / "pointmap.npy", points)
    known, _, said = read_pointmap("auto", picture)
    assert np.isnan(known[:7]).all() and np.isnan(known[7, 0]).all() and np.isfinite(known[8:]).all()
    assert "10.4% zero" in said and "2.1% behind the camera" in said and "2.1% infinite" in said and "far away" in said
    np.save(vase / "pointmap.npy", known)
    assert read_pointmap("auto", picture)[2] is None


@pytest.mark.parametrize(("value", "expected"), [(0, "no point in front"), (np.nan, "no finite point")])
def test_a_map_without_points(vase, picture, value, expected):
    np.save(vase / "pointmap.npy", np.full((HEIGHT, WIDTH, 3), value, dtype=np.float32))
    points, _, said = read_pointmap("auto", picture)
    assert points is None and "not used" in said and expected in said
    with pytest.raises(UserError, match=expected):
        read_pointmap(str(vase / "pointmap.npy"), picture)


def test_another_camera_frame_is_named_where_no_point_lies_in_front(vase, picture):
    np.save(vase / "pointmap.npy", wall() * np.array([-1, 1, -1], dtype=np.float32))
    with pytest.raises(UserError, match=r"looks like OpenGL's camera frame.*\[-1, 1, -1\]"):
        read_pointmap(str(vase / "pointmap.npy"), picture)


def test_an_object_without_depth_is_told_of_before_the_work(ask, vase, listener, loads):
    points = wall()
    points[disc(20, 20)] = 0
    np.save(vase / "pointmap.npy", points)
    result = run_scene(ask("o", image_dir=str(vase), batch=1), listener=listener)
    flat = [text for text in listener.warnings if "as if it were flat" in text]
    assert len(flat) == 1 and result.failed == ()
    assert unknown_depths(None, []) == []
