"""Strange files and names on the command line: a line and exit code 2, or the results."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastsam3d.cli.commands.demo import options_from
from fastsam3d.cli.main import main
from fastsam3d.errors import UserError


def test_a_mask_called_by_a_sign_that_looks_like_a_digit(run, folder: Path, tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    masks.mkdir()
    shutil.copy(folder / "0.png", masks / "².png")
    shutil.copy(folder / "1.png", masks / "1.png")
    words = ("--image_path", folder / "image.png", "--masks", masks, "--output_dir", tmp_path / "o", "--export", "glb")
    code, _, stderr = run("scene", *words)
    assert code == 0, stderr
    assert {"².glb", "object_1.glb"} <= {path.name for path in (tmp_path / "o").iterdir()}


def test_a_digit_of_another_script_is_no_port() -> None:
    with pytest.raises(UserError, match="whole number"):
        options_from(["port=²"])


@pytest.mark.parametrize(
    "words",
    [
        ["infer", "--image_path", "~nobody_of_that_name/a.png"],
        ["infer", "--mask_path", "~nobody_of_that_name/a.png"],
        ["infer", "--output_dir", "~nobody_of_that_name/out"],
        ["infer", "--pointmap", "~nobody_of_that_name/a.npy"],
        ["infer", "checkpoint_dir=~nobody_of_that_name/weights"],
        ["infer", "~nobody_of_that_name/a.png"],
        ["scene", "--image_dir", "~nobody_of_that_name"],
        ["scene", "--masks", "~nobody_of_that_name/masks"],
        ["view", "~nobody_of_that_name/a.glb"],
        ["turntable", "~nobody_of_that_name/a.glb"],
        ["infer", "acceleration=~nobody_of_that_name/a.yaml"],
    ],
)
def test_the_home_of_nobody_is_a_line(words: list[str], capsys) -> None:
    assert main(words) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
    assert line.startswith("error: ") and "nobody_of_that_name" in line


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names themselves")
def test_names_that_are_no_text_are_written(run, folder: Path, tmp_path: Path) -> None:
    strange = tmp_path / os.fsdecode(b"caf\xe9")
    shutil.copytree(folder, strange)
    out = tmp_path / os.fsdecode(b"out\xff")
    code, _, stderr = run("infer", "--image_path", strange, "--output_dir", out, "--export", "glb,obj,ply")
    assert code == 0, stderr
    names = {path.suffix for path in out.iterdir()}
    assert {".glb", ".obj", ".ply", ".json"} <= names
    file = next(path for path in out.iterdir() if path.suffix == ".glb")
    assert run("view", file, "--html", tmp_path / "page.html")[0] == 0
    assert run("turntable", file, "--frames", 1, "--size", 16, "--output_dir", out)[0] == 0


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
@pytest.mark.parametrize("place", ["picture", "mask", "array"])
def test_pipes_and_devices_are_refused(run, folder: Path, tmp_path: Path, place: str) -> None:
    name = {"picture": "pipe.png", "mask": "pipe.png", "array": "pipe.npy"}[place]
    os.mkfifo(tmp_path / name)
    picture = tmp_path / name if place == "picture" else folder / "image.png"
    more = () if place == "picture" else ("--mask_path", tmp_path / name)
    code, _, stderr = run("infer", "--image_path", picture, *more, "--output_dir", tmp_path / "o")
    assert code == 2 and "pipe or a device" in stderr


def test_a_doubt_about_the_pixels_is_a_warning(run, folder: Path, tmp_path: Path) -> None:
    with Image.open(folder / "image.png") as image:
        grey = np.asarray(image.convert("L")).astype(np.uint16) * 16
    Image.fromarray(grey).save(folder / "deep.png")
    words = ("--image_path", folder / "deep.png", "--mask_path", folder / "0.png", "--output_dir", tmp_path / "o")
    code, _, stderr = run("infer", *words, "--export", "glb")
    assert code == 0 and "read as 0..4095" in stderr


def test_rows_without_a_place_are_told_when_a_file_is_shown(run, tmp_path: Path) -> None:
    (tmp_path / "a.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nv nan 0 0\nf 1 2 3\nf 1 2 4\n")
    code, _, stderr = run("view", tmp_path / "a.obj", "--html", tmp_path / "a.html")
    assert code == 0 and "warning: " in stderr and "1 of 4 points" in stderr
