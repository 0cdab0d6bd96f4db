"""`--box`, `--point` and `--all` on the command line: from a picture without any mask to results."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("cv2", reason="marking needs OpenCV (extra demo)")


@pytest.fixture
def photo(folder: Path, tmp_path: Path) -> Path:
    """The vase's picture without masks: a red disc around (20, 20) and a blue one around (46, 26), on grey."""
    path = tmp_path / "photo.png"
    path.write_bytes((folder / "image.png").read_bytes())
    return path


@pytest.fixture
def truth(folder: Path) -> list[np.ndarray]:
    return [np.asarray(Image.open(folder / f"{number}.png"))[..., 3] > 0 for number in (0, 1)]


def overlap(path: Path, truth: np.ndarray) -> float:
    mask = np.asarray(Image.open(path)) > 127
    return float((mask & truth).sum() / (mask | truth).sum())


@pytest.mark.parametrize(
    ("words", "made"),
    [
        (["--box", "6,6,34,34"], "a box"),
        (["box=6,6,34,34"], "a box"),
        (["--point", "20,20"], "1 point"),
        (["--point", "20,20", "--point", "-46,26"], "2 points"),
        (["point=20,20;-46,26"], "2 points"),
        (["--box", "2,2,60,44", "--point", "20,20", "--point=-46,26"], "a box and 2 points"),
    ],
)
def test_one_object_is_marked_and_its_mask_is_saved(words, made, run, photo, truth, tmp_path) -> None:
    out = tmp_path / "o"
    code, stdout, stderr = run("infer", "--image_path", photo, "--output_dir", out, *words)
    assert code == 0, stderr
    assert overlap(out / "photo_marked_mask.png", truth[0]) > 0.85
    assert f"mask made by {made}, saved as photo_marked_mask.png" in stdout
    report = json.loads((out / "report.json").read_text())
    assert report["inputs"]["mask"] is None and report["objects"][0]["files"]["mask"] == "photo_marked_mask.png"
    assert set(report["objects"][0]["marked"]) == {"box", "points"}
    # The saved mask gives the same object again.
    again = tmp_path / "again"
    words = ("--image_path", photo, "--mask_path", out / "photo_marked_mask.png", "--output_dir", again)
    assert run("infer", *words, "name=photo_marked")[0] == 0
    assert (again / "photo_marked.glb").read_bytes() == (out / "photo_marked.glb").read_bytes()


def test_a_scene_is_marked_by_boxes(run, photo, truth, tmp_path) -> None:
    out = tmp_path / "o"
    words = ("--image_path", photo, "--output_dir", out, "--box", "8,8,33,32", "--box", "33,14,60,40")
    code, _, stderr = run("scene", *words)
    assert code == 0, stderr
    assert overlap(out / "object_0_mask.png", truth[0]) > 0.85
    assert overlap(out / "object_1_mask.png", truth[1]) > 0.85
    report = json.loads((out / "report.json").read_text())
    assert report["inputs"]["masks"] == [None, None] and report["objects"][1]["marked"]["box"] == [33, 14, 60, 40]
    code, _, stderr = run("scene", *words, "--resume")
    assert code == 0 and "complete, nothing to do" in stderr


def test_all_objects_are_proposed(run, photo, tmp_path) -> None:
    code, stdout, stderr = run("scene", "--image_path", photo, "--all", "--output_dir", tmp_path / "o")
    assert code == 0, stderr
    masks = sorted(path.name for path in (tmp_path / "o").glob("*_mask.png"))
    assert masks == [f"object_{number}_mask.png" for number in range(len(masks))] and masks
    assert "mask proposed (--all), saved as object_0_mask.png" in stdout
    code, _, stderr = run("infer", "--image_path", photo, "all=true", "--output_dir", tmp_path / "p")
    assert code == 0 and (tmp_path / "p" / "photo_0_mask.png").is_file()


@pytest.mark.parametrize(
    ("verb", "words", "message"),
    [
        ("infer", ["--box", "100,100,120,120"], "lies outside of the picture, which is 64 x 48 pixels"),
        ("infer", ["--box", "34,34,6,6"], "Did you mean --box 6,6,34,34"),
        ("infer", ["--box", "-6,6,-1,34"], "lies outside of the picture"),
        ("infer", ["--point", "20"], "--point 20 cannot be read"),
        ("infer", ["--point", "-20,20"], "every --point is on the background"),
        ("infer", ["--point", "20,20", "--all"], "--all finds the objects by itself"),
        ("infer", ["--box", "6,6,34,34", "--box", "33,14,60,40"], "Use infer_scene"),
        ("infer", ["--box", "6,6,34,34", "--mask_path", "{f}/0.png"], "Give one of them"),
        ("scene", ["--box", "6,6,34,34", "--masks", "{f}"], "Give one of them"),
        ("infer", [], "--box x0,y0,x1,y1 or --point x,y, or in the browser: python gradio_demo.py"),
        ("scene", [], "--box x0,y0,x1,y1 for each, or --all, or in the browser: python gradio_demo.py"),
    ],
)
def test_mistakes_are_explained_and_nothing_is_written(verb, words, message, run, photo, folder, tmp_path) -> None:
    alone = tmp_path / "alone" / "photo.png"
    alone.parent.mkdir()
    alone.write_bytes(photo.read_bytes())
    words = [word.format(f=folder) for word in words]
    code, stdout, stderr = run(verb, "--image_path", alone, "--output_dir", tmp_path / "o", *words)
    assert (code, stdout) == (2, "") and message in stderr and not (tmp_path / "o").exists()


def test_doubtful_marks_are_said_before_the_work(run, tmp_path) -> None:
    """A box without any room around a red square."""
    pixels = np.full((48, 64, 3), 120, dtype=np.uint8)
    pixels[10:30, 10:30] = (220, 40, 30)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    words = ("--image_path", tmp_path / "photo.png", "--output_dir", tmp_path / "o")
    code, _, stderr = run("infer", *words, "--box", "10,10,30,30")
    assert code == 0 and "warning: the mask fills the box 10,10,30,30 entirely" in stderr
    report = json.loads((tmp_path / "o" / "report.json").read_text())
    assert any("fills the box" in text for text in report["warnings"])


def test_no_mask_file_is_said_to_change_nothing(run, photo, tmp_path) -> None:
    words = ("--image_path", photo, "--box", "6,6,34,34", "--mask_index", "1", "--output_dir", tmp_path / "o")
    code, _, stderr = run("infer", *words)
    assert code == 0 and "mask_index changes nothing, because the object was marked" in stderr
