"""`--box`, `--point` and `--all` on the command line: from a picture without any mask to results."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fastsam3d.cli.flags import parse
from fastsam3d.cli.settings import request_of

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


@pytest.fixture
def segment_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Weights for a stand-in of the package, whose predictor answers with the box, or 20 x 20 pixels about a point."""

    class Predictor:
        def __init__(self, network) -> None:
            self.side = int(network.weight.item())

        def set_image(self, image: np.ndarray) -> None:
            self.shape = image.shape[:2]

        def predict(self, point_coords, point_labels, box, multimask_output):
            mask = np.zeros((1, *self.shape), dtype=bool)
            if box is None:
                (x, y), reach = point_coords[0], self.side / 2
                box = np.array([x - reach, y - reach, x + reach, y + reach])
            left, top, right, bottom = box.astype(int)
            mask[0, top:bottom, left:right] = True
            return mask, np.ones(1), None

    package = types.ModuleType("segment_anything")
    package.sam_model_registry = {"vit_b": lambda: torch.nn.Linear(1, 1, bias=False)}
    package.SamPredictor = Predictor
    monkeypatch.setitem(sys.modules, "segment_anything", package)
    path = tmp_path / "sam.pth"
    torch.save({"weight": torch.tensor([[20.0]])}, path)
    return path


def test_segment_anything_marks_an_object_where_it_is_asked_to(run, photo, segment_anything, tmp_path) -> None:
    words = ("--image_path", photo, "--output_dir", tmp_path / "o", "--marker", "sam", "--point", "21,20")
    code, _, stderr = run("infer", *words, f"sam_checkpoint={segment_anything}", "sam_model=vit_b")
    assert code == 0, stderr
    mask = np.asarray(Image.open(tmp_path / "o" / "photo_marked_mask.png")) > 127
    expected = np.zeros_like(mask)
    expected[10:30, 11:31] = True
    assert np.array_equal(mask, expected)
    settings = json.loads((tmp_path / "o" / "report.json").read_text())["settings"]
    assert (settings["marker"], settings["sam_checkpoint"]) == ("sam", str(segment_anything))


def test_segment_anything_marks_a_scene(run, photo, segment_anything, tmp_path) -> None:
    words = ("--image_path", photo, "--output_dir", tmp_path / "o", "--box", "8,8,33,32", "--box", "33,14,60,40")
    code, _, stderr = run("scene", *words, f"sam_checkpoint={segment_anything}")
    assert code == 0, stderr
    assert [(np.asarray(Image.open(tmp_path / "o" / f"object_{n}_mask.png")) > 0).sum() for n in (0, 1)] == [600, 702]


@pytest.mark.parametrize(
    ("words", "messages"),
    [
        (["--marker", "sam"], ["sam_checkpoint=FILE", "package segment_anything"]),
        (["marker=sams"], ["marker=sams is not possible", "sam"]),
        (["--marker", "learned", "sam_checkpoint=a.pth"], ["does not use sam_checkpoint", "marker=sam"]),
        (["sam_checkpoint=nowhere.pth"], ["no file", "nowhere.pth", "segment_anything is not installed"]),
    ],
)
def test_what_a_marker_lacks_is_named_before_any_work(
    words, messages, run, photo, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "segment_anything", None)
    code, _, stderr = run("infer", "--image_path", photo, "--output_dir", tmp_path / "o", "--point", "20,20", *words)
    assert code == 2 and "Traceback" not in stderr and not (tmp_path / "o").exists()
    assert all(message in stderr for message in messages), stderr


def test_a_marker_without_marks_is_told_of() -> None:
    words = ["sam_checkpoint=a.pth"]
    assert request_of(parse([*words, "--all"])).warnings[-1].startswith("sam_checkpoint changes nothing, because there")
    assert request_of(parse([*words, "--point", "3,3"])).warnings == request_of(parse(["--point", "3,3"])).warnings


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
