"""Masks that a first-time user brings: arrays, inverted ones, and one that covers everything."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from fastsam3d.cli.inputs import read_mask, read_picture
from fastsam3d.errors import UserError


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
        (np.array([["a"]]), "give bool or numbers"),
        (np.array([[None]]), "cannot be read"),
    ],
)
def test_unusable_arrays_are_explained(folder, tmp_path, array, message) -> None:
    np.save(tmp_path / "mask.npy", array, allow_pickle=True)
    with pytest.raises(UserError, match=message):
        read_mask(tmp_path / "mask.npy", read_picture(folder))
    with pytest.raises(UserError, match="does not exist"):
        read_mask(tmp_path / "none.npy", read_picture(folder))


def test_a_path_without_its_flag_is_recognised(run, folder) -> None:
    code, _, stderr = run("infer", folder / "image.png")
    assert code == 2 and f"Did you mean --image_path {folder / 'image.png'}?" in stderr
