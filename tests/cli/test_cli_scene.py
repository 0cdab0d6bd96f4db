"""`scene` from arguments to files."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import trimesh
from PIL import Image

from fastsam3d.jobs.mask_sets import read_labels
from fastsam3d.jobs.pictures import read_picture
from fastsam3d.sam3d.pipeline.pipeline import Pipeline


def test_writes_the_scene_and_every_object(run, folder, tmp_path):
    out = tmp_path / "out"
    code, stdout, stderr = run("scene", "--image_dir", folder, "--output_dir", out, "preview=true")
    assert code == 0, stderr
    per_object = {
        f"object_{k}{end}" for k in range(3) for end in (".glb", "_camera.glb", "_points.ply", "_preview.png")
    }
    assert {path.name for path in out.iterdir()} == per_object | {
        "scene.glb",
        "layout.json",
        "scene_preview.png",
        "report.json",
    }
    assert set(trimesh.load(out / "scene.glb").geometry) == {"object_0", "object_1", "object_2"}
    layout = json.loads((out / "layout.json").read_text())
    assert [item["name"] for item in layout["objects"]] == ["object_0", "object_1", "object_2"]
    report = json.loads((out / "report.json").read_text())
    assert report["acceleration"]["objects"] == 3
    assert [item["pose"] for item in report["objects"]] == [
        {key: item[key] for key in ("rotation_wxyz", "translation", "scale")} for item in layout["objects"]
    ]
    assert all(f"object_{k} " in stdout for k in range(3))
    # Files that differ by a number only are one line.
    assert "object_*.glb" in stdout and "3 files" in stdout and "scene.glb" in stdout


def test_an_object_is_the_same_alone_and_in_a_scene(run, folder, tmp_path):
    words = ("--image_dir", folder, "--output_dir", tmp_path / "s", "acceleration=balanced", "--batch", 1)
    assert run("scene", *words)[0] == 0
    words = ("--image_path", folder, "--mask_index", 1, "name=object_1", "acceleration=balanced")
    assert run("infer", *words, "--output_dir", tmp_path / "i")[0] == 0
    assert (tmp_path / "s" / "object_1.glb").read_bytes() == (tmp_path / "i" / "object_1.glb").read_bytes()


def test_one_object_that_fails_does_not_stop_the_others(run, folder, tmp_path):
    mask = Image.new("L", (64, 48), 0)
    mask.putpixel((5, 5), 255)
    mask.save(folder / "1.png")
    code, stdout, stderr = run("scene", "--image_dir", folder, "--output_dir", tmp_path / "o")
    assert code == 1
    assert "1 x 1 pixels" in stderr
    assert "failed" in stdout
    report = json.loads((tmp_path / "o" / "report.json").read_text())
    assert ["error" in item for item in report["objects"]] == [False, True, False]
    assert set(trimesh.load(tmp_path / "o" / "scene.glb").geometry) == {"object_0", "object_2"}


def test_scene_without_any_usable_object_writes_nothing(run, folder, tmp_path):
    mask = Image.new("L", (64, 48), 0)
    mask.putpixel((5, 5), 255)
    for number in range(3):
        mask.save(folder / f"{number}.png")
    code, stdout, stderr = run("scene", "--image_dir", folder, "--output_dir", tmp_path / "o")
    assert (code, stdout) == (2, "")
    assert "none of the 3 objects" in stderr.splitlines()[-1]
    assert not (tmp_path / "o").exists()


def test_folder_without_masks(run, tmp_path):
    Image.new("RGB", (20, 20)).save(tmp_path / "image.png")
    code, _, stderr = run("scene", "--image_dir", tmp_path, "--output_dir", tmp_path / "o")
    assert code == 2
    assert "no masks in" in stderr and "0.png" in stderr


def test_without_arguments_the_bundled_scene(run, tmp_path):
    code, stdout, stderr = run("scene", f"output_dir={tmp_path / 'o'}", "--json")
    assert code == 0, stderr
    assert len(json.loads(stdout)["objects"]) == 4


def names_of(out):
    return [item["name"] for item in json.loads((out / "layout.json").read_text())["objects"]]


def test_layout_and_report_say_what_a_person_needs(run, folder, tmp_path):
    code, stdout, _ = run("scene", "--image_dir", folder, "--output_dir", tmp_path / "o")
    assert code == 0
    assert "first stage for up to 8 at a time, camera of 60 degrees, assumed" in stdout
    layout = json.loads((tmp_path / "o" / "layout.json").read_text())
    assert layout["camera"]["source"] == "assumed"
    assert "real sizes are not known" in layout["camera"]["units"]
    # 60 degrees across 64 pixels: a focal length of 32 / tan 30.
    assert layout["camera"]["intrinsics"][0] == [pytest.approx(32 / math.tan(math.radians(30))), 0, 32]
    for item in layout["objects"]:
        assert len(item["rotation_wxyz"]) == 4 and item["seed"] == 0
        assert len(item["bounds_camera"]) == len(item["bounds_object"]) == 2
    report = json.loads((tmp_path / "o" / "report.json").read_text())
    assert report["axes"]["glb"]["up"] == "+y" and report["axes"]["ply"]["up"] == "+z"
    assert report["scene"]["batch"] == 8 and report["scene"]["seconds_per_object"] > 0
    assert all(0 <= item["mask_iou"] <= 1 for item in report["objects"])


def test_an_object_in_camera_frame_lies_where_the_scene_has_it(run, folder, tmp_path):
    assert run("scene", "--image_dir", folder, "--output_dir", tmp_path / "o")[0] == 0
    scene = trimesh.load(tmp_path / "o" / "scene.glb", process=False)
    layout = json.loads((tmp_path / "o" / "layout.json").read_text())
    for entry in layout["objects"]:
        alone = trimesh.load(tmp_path / "o" / f"{entry['name']}_camera.glb", process=False).to_mesh()
        matrix, geometry = scene.graph.get(entry["name"], "scene")
        placed = trimesh.transform_points(scene.geometry[geometry].vertices, matrix)
        assert np.allclose(alone.vertices, placed, atol=1e-6)
        low, high = np.array(entry["bounds_camera"])
        turned = np.sort(np.array([low, high]) * [-1, 1, -1], axis=0)
        assert np.allclose(alone.bounds, turned, atol=1e-5)
    root = trimesh.transformations.quaternion_matrix(np.roll(layout["scene_root_rotation_xyzw"], 1))
    assert np.allclose(scene.graph.get("scene")[0], root, atol=1e-6)


def test_masks_from_a_folder_and_from_a_label_image_are_the_same(run, folder, tmp_path):
    masks = tmp_path / "masks"
    masks.mkdir()
    labels = np.zeros((48, 64), dtype=np.uint8)
    for number, name in ((0, "cup"), (1, "7")):
        alpha = np.asarray(Image.open(folder / f"{number}.png"))[..., 3] > 127
        labels[alpha & (labels == 0)] = number + 1
        Image.fromarray(((labels == number + 1) * 255).astype(np.uint8)).save(masks / f"{name}.png")
    Image.fromarray(labels).save(tmp_path / "labels.png")
    picture = ("--image_path", folder / "image.png")
    assert run("scene", *picture, "--masks", masks, "--output_dir", tmp_path / "a", "batch=1")[0] == 0
    code, _, stderr = run(
        "scene", *picture, "--masks", tmp_path / "labels.png", "--output_dir", tmp_path / "b", "batch=1"
    )
    assert code == 0, stderr
    assert names_of(tmp_path / "a") == ["object_7", "cup"]
    assert names_of(tmp_path / "b") == ["object_1", "object_2"]
    assert (tmp_path / "a" / "cup_points.ply").read_bytes() == (tmp_path / "b" / "object_1_points.ply").read_bytes()


def test_colours_and_palettes_are_labels_too(folder, tmp_path):
    picture = read_picture(folder / "image.png")
    index = np.zeros((48, 64), dtype=np.uint8)
    index[5:15, 5:15], index[20:40, 30:50] = 3, 9
    palette = Image.fromarray(index).convert("P")
    colored = np.zeros((48, 64, 3), dtype=np.uint8)
    colored[index == 3], colored[index == 9] = (255, 0, 10), (0, 40, 0)
    for image, expected in ((palette, ["3", "9"]), (Image.fromarray(colored), ["1", "2"])):
        image.save(tmp_path / "labels.png")
        found = read_labels(tmp_path / "labels.png", picture)
        assert [mask.label for mask in found] == expected
        assert {int(mask.pixels.sum()) for mask in found} == {100, 400}


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("both", "both masks (0.png, ...) and a label image (labels.png): choose with --masks"),
        ("size", "32 x 24 pixels, the picture 64 x 48"),
        ("empty", "all background"),
        ("photograph", "looks like a photograph"),
        ("none", "no masks in"),
        ("missing", "does not exist"),
        ("twice", "two masks called 0"),
        ("two pictures", "--image_path and --image_dir were both given"),
    ],
)
def test_unusable_masks_are_named(run, folder, tmp_path, kind, expected):
    labels, words = tmp_path / "labels.png", ["--masks", tmp_path / "labels.png"]
    if kind == "both":
        labels, words = folder / "labels.png", []
    if kind in ("both", "size", "empty"):
        value = np.full((24, 32) if kind == "size" else (48, 64), int(kind != "empty"), dtype=np.uint8)
        Image.fromarray(value).save(labels)
    elif kind == "photograph":
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)).save(labels)
    elif kind in ("none", "twice"):
        words = ["--masks", tmp_path / "masks"]
        (tmp_path / "masks").mkdir()
        if kind == "twice":
            for suffix in (".png", ".bmp"):
                Image.new("L", (64, 48), 255).save(tmp_path / "masks" / f"0{suffix}")
    elif kind == "two pictures":
        words = ["--image_path", folder / "image.png"]
    code, stdout, stderr = run("scene", "--image_dir", folder, *words, "--output_dir", tmp_path / "o")
    if kind == "none":
        expected = "there are no masks in"
    assert (code, stdout) == (2, "")
    assert expected in stderr
    assert not (tmp_path / "o").exists()


def test_an_interrupted_scene_goes_on_where_it_stopped(run, folder, tmp_path, monkeypatch):
    words = ("scene", "--image_dir", folder, "acceleration=balanced", "--batch", 2)
    assert run(*words, "--output_dir", tmp_path / "whole")[0] == 0
    original, calls = Pipeline.run, []

    def interrupted(self, *arguments, **options):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(self, *arguments, **options)

    monkeypatch.setattr(Pipeline, "run", interrupted)
    out = tmp_path / "o"
    code, stdout, stderr = run(*words, "--output_dir", out)
    assert (code, stdout) == (130, "")
    assert "2 of 3 objects are kept: --resume" in stderr
    assert [path.name for path in out.iterdir()] == [".scene"]
    calls[:] = [1] * 10
    assert run(*words, "--output_dir", out, "--resume", "seed=1")[0] == 2
    code, _, stderr = run(*words, "--output_dir", out, "--resume")
    assert code == 0, stderr
    assert "2 of 3 objects are taken" in stderr
    assert len(calls) == 11
    assert len(json.loads((out / "report.json").read_text())["scene"]["resumed"]) == 2
    files = {path.name for path in out.iterdir()}
    assert files == {path.name for path in (tmp_path / "whole").iterdir()}
    for name in files - {"report.json"}:
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_resume_refuses_another_scene(run, folder, tmp_path):
    # The failure of one object leaves the others to be resumed.
    mask = Image.new("L", (64, 48), 0)
    mask.putpixel((5, 5), 255)
    mask.save(folder / "1.png")
    words = ("scene", "--image_dir", folder, "--output_dir", tmp_path / "o")
    assert run(*words)[0] == 1
    for change, expected in (
        ("seed=3", "seed was 0 and is 3"),
        ("acceleration=balanced", "acceleration."),
        ("model.ss_sampler.inference_steps=5", "samplers.ss_sampler.inference_steps was 4 and is 5"),
    ):
        code, _, stderr = run(*words, "--resume", change)
        assert code == 2
        assert expected in stderr and "start again" in stderr
    # Other files of the same objects need nothing to be computed again.
    code, _, stderr = run(*words, "--resume", "--export", "stl")
    assert code == 1 and (tmp_path / "o" / "object_0.stl").is_file()
    other = np.zeros((48, 64), dtype=np.uint8)
    other[4:20, 4:20] = 255
    Image.fromarray(other).save(folder / "0.png")
    code, _, stderr = run(*words, "--resume")
    assert code == 1 and "object_0 of the interrupted run was made of another mask" in stderr
    assert "1 of 2 objects are taken" in stderr
    picture = np.asarray(Image.open(folder / "image.png")).copy()
    picture[0, 0] = 9
    Image.fromarray(picture).save(folder / "image.png")
    code, _, stderr = run(*words, "--resume")
    assert code == 2 and "the picture has changed" in stderr


def test_resume_without_anything_to_resume_begins_anew(run, folder, tmp_path):
    assert run("scene", "--image_dir", folder, "--output_dir", tmp_path / "o", "--resume")[0] == 0
    assert not (tmp_path / "o" / ".scene").exists()
