"""`scene` from arguments to files."""

from __future__ import annotations

import json

import trimesh
from PIL import Image


def test_writes_the_scene_and_every_object(run, folder, tmp_path):
    out = tmp_path / "out"
    code, stdout, stderr = run("scene", "--image_dir", folder, "--output_dir", out, "preview=true")
    assert code == 0, stderr
    per_object = {f"object_{k}{end}" for k in range(3) for end in (".glb", ".ply", "_preview.png")}
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
    assert run("scene", "--image_dir", folder, "--output_dir", tmp_path / "s", "acceleration=balanced")[0] == 0
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
