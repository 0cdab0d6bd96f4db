"""Masks that a first-time user brings: arrays, inverted ones, and one that covers everything."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from fastsam3d.errors import UserError
from fastsam3d.jobs.mask_sets import scene_masks
from fastsam3d.jobs.masks import read_mask
from fastsam3d.jobs.pictures import read_picture


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda mask: np.full_like(mask, 255), "covers the whole picture"),
        (lambda mask: 255 - mask, "is it inverted?"),
        (lambda mask: mask, None),
    ],
)
def test_odd_masks_are_used_with_a_warning(run, folder, tmp_path, change, expected) -> None:
    mask = np.asarray(Image.open(folder / "2.png"))
    Image.fromarray(change(mask)).save(tmp_path / "mine.png")
    words = ("--image_path", folder, "--mask_path", tmp_path / "mine.png", "--output_dir", tmp_path / "o", "--quiet")
    code, stdout, stderr = run("infer", *words, "preview=false")
    assert code == 0 and stdout == ""
    assert stderr.startswith("warning: the mask") and expected in stderr if expected else stderr == ""


def test_a_mask_may_be_an_array(folder, tmp_path) -> None:
    picture = read_picture(folder)
    expected = read_mask(folder / "2.png", picture).pixels
    for number, array in enumerate((expected, expected[..., None].astype(np.uint8), expected * 0.7)):
        np.save(tmp_path / f"{number}.npy", array)
        assert (read_mask(tmp_path / f"{number}.npy", picture).pixels == expected).all()


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 4, 5)), r"shape \(3, 4, 5\)"),
        (np.ones((4, 4)), "4 x 4 pixels, the picture"),
        (np.array([["a"]]), "give one array of numbers"),
        (np.array([[None]]), "cannot be read"),
    ],
)
def test_unusable_arrays_are_explained(folder, tmp_path, array, message) -> None:
    np.save(tmp_path / "mask.npy", array, allow_pickle=True)
    with pytest.raises(UserError, match=message):
        read_mask(tmp_path / "mask.npy", read_picture(folder))
    with pytest.raises(UserError, match="does not exist"):
        read_mask(tmp_path / "none.npy", read_picture(folder))


def test_palettes_colours_and_scores_are_understood(folder, tmp_path) -> None:
    picture = read_picture(folder)
    expected = read_mask(folder / "2.png", picture).pixels
    palette = Image.fromarray(expected.astype(np.uint8)).convert("P")
    palette.putpalette([0, 0, 0, 128, 0, 0])
    palette.save(tmp_path / "palette.png")
    Image.fromarray((expected[..., None] * [200, 0, 40]).astype(np.uint8)).save(tmp_path / "red.png")
    np.save(tmp_path / "scores.npy", np.where(expected, 0.5, -9.0) + 8 * (expected & (np.arange(64) < 32)))
    for name in ("palette.png", "red.png", "scores.npy"):
        assert (read_mask(tmp_path / name, picture).pixels == expected).all(), name


def test_a_label_image_is_no_mask_of_one_object(folder, tmp_path) -> None:
    labels = np.zeros((48, 64), dtype=np.uint8)
    labels[:20, :20], labels[:20, 40:] = 3, 7
    Image.fromarray(labels).save(tmp_path / "labels.png")
    np.save(tmp_path / "labels.npy", labels)
    for name in ("labels.png", "labels.npy"):
        with pytest.raises(UserError, match=r"several values \(3, 7\).*infer_scene --masks"):
            read_mask(tmp_path / name, read_picture(folder))


def test_scenes_take_arrays(folder, tmp_path) -> None:
    picture = read_picture(folder)
    first, second = (read_mask(folder / f"{n}.png", picture).pixels for n in range(2))
    np.save(tmp_path / "labels.npy", np.where(first, 4, np.where(second, 9, -1)))
    np.save(tmp_path / "stack.npy", np.stack([first, second]))
    (tmp_path / "masks").mkdir()
    np.save(tmp_path / "masks" / "cup.npy", first)
    Image.fromarray(second).save(tmp_path / "masks" / "vase.png")
    found = {name: scene_masks(picture, str(tmp_path / name)) for name in ("labels.npy", "stack.npy", "masks")}
    for masks in found.values():
        assert [(mask.pixels == own).all() for mask, own in zip(masks, (first, second), strict=True)] == [True, True]
    labels = {name: [mask.label for mask in masks] for name, masks in found.items()}
    assert labels == {"labels.npy": ["4", "9"], "stack.npy": ["0", "1"], "masks": ["cup", "vase"]}


def test_one_unusable_mask_leaves_the_others(run, folder, tmp_path) -> None:
    good = (folder / "1.png").read_bytes()
    Image.new("L", (64, 48), 0).save(folder / "1.png")
    words = ("--image_dir", folder, "--output_dir", tmp_path / "o", "--batch", "1")
    code, _, stderr = run("scene", *words, "--export", "glb")
    assert code == 1 and "warning: object_1 is left out: the mask" in stderr
    report = json.loads((tmp_path / "o" / "report.json").read_text())
    assert ["error" in item for item in report["objects"]] == [False, True, False]
    assert (report["scene"]["objects"], report["scene"]["failed"]) == (3, 1)
    (folder / "1.png").write_bytes(good)
    code, _, stderr = run("scene", *words, "--export", "glb", "--resume")
    assert code == 0 and "2 of 3 objects are taken" in stderr


def test_a_large_photo_is_no_attack(folder, monkeypatch, recwarn) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 48 * 64 - 1)
    assert read_picture(folder).size == (48, 64) and not recwarn.list
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 48 * 64 // 2 - 1)
    with pytest.raises(UserError, match="too large"):
        read_picture(folder)


def test_a_path_without_its_flag_is_recognised(run, folder) -> None:
    code, _, stderr = run("infer", folder / "image.png")
    assert code == 2 and f"Did you mean --image_path {folder / 'image.png'}?" in stderr
