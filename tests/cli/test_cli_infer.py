"""`infer` from arguments to files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]


def test_writes_all_files_and_a_table(run, folder, tmp_path):
    out = tmp_path / "deep" / "out"
    code, stdout, stderr = run("infer", "--image_path", folder / "image.png", "--output_dir", out, "preview=true")
    assert code == 0, stderr
    assert {path.name for path in out.iterdir()} == {
        "vase_0.glb",
        "vase_0_points.ply",
        "vase_0_preview.png",
        "report.json",
    }
    (mesh,) = trimesh.load(out / "vase_0.glb").geometry.values()
    assert len(mesh.visual.vertex_attributes["color"]) == len(mesh.vertices) > 100
    assert Image.open(out / "vase_0_preview.png").size == (1280, 640)
    assert stdout.startswith("mini · off with model.ss_sampler.inference_steps=4, ")
    assert " · seed 0 · cpu (" in stdout
    for word in ("sparse structure", "computed", "forecast", "tokens kept", "peak memory", "versions", "vase_0.glb"):
        assert word in stdout
    assert stderr == ""


def test_report_holds_what_was_done(run, folder, tmp_path):
    code, _, _ = run(
        "infer", "--image_path", folder / "image.png", "--mask_index", 1, "--output_dir", tmp_path / "out", "--seed", 5
    )
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert code == 0
    assert (report["preset"], report["seed"], report["model"]) == ("off", 5, "mini")
    assert report["inputs"] == {
        "image": str(folder / "image.png"),
        "mask": str(folder / "1.png"),
        "pointmap": None,
    }
    stages = report["acceleration"]["stages"]
    # Four steps. Guidance is on while t <= 1/2: at all of 0, 1/10, 1/4, 1/2 of the bent grid (rescale 3), and at
    # 0, 1/4, 1/2 of the even one.
    assert stages["sparse_structure"]["conditional_computed"] == 4
    assert stages["sparse_structure"]["unconditional_computed"] == 4
    assert stages["structured_latent"]["unconditional_computed"] == 3
    assert stages["sparse_structure"]["forecast"] == 0
    assert set(report["versions"]) == {"fastsam3d", "torch", "numpy", "python", "platform"}
    (item,) = report["objects"]
    assert item["name"] == "vase_1"
    assert item["files"]["ply_holds"] == "points of the surface"
    assert report["settings"]["acceleration"]["step_caching"]["enabled"] is False


def test_without_layout_the_shape_is_nearly_the_same_and_there_is_no_pose(run, folder, tmp_path):
    for name, words in (("whole", ()), ("shape", ("layout=false",))):
        code, _, stderr = run("infer", "--image_path", folder / "image.png", "--output_dir", tmp_path / name, *words)
        assert code == 0, stderr
    whole, shape = (json.loads((tmp_path / name / "report.json").read_text()) for name in ("whole", "shape"))
    assert whole["objects"][0]["pose"] is not None
    assert shape["objects"][0]["pose"] is None
    assert whole["objects"][0]["voxels"] == shape["objects"][0]["voxels"]
    # Colours are fitted to the picture with a layout only, and the decoder sees them beside the shape.
    boxes = [trimesh.load(tmp_path / name / "vase_0.glb", force="mesh").bounds for name in ("whole", "shape")]
    np.testing.assert_allclose(*boxes, atol=0.01)


def test_json_prints_the_report_and_nothing_else(run, folder, tmp_path):
    code, stdout, _ = run(
        "infer", "--image_path", folder / "image.png", "--json", "--output_dir", tmp_path / "o", "acceleration=fast"
    )
    assert code == 0
    assert stdout == (tmp_path / "o" / "report.json").read_text()
    assert json.loads(stdout)["preset"] == "fast"


def test_quiet_prints_nothing(run, folder, tmp_path):
    assert run("infer", "--image_path", folder / "image.png", "--quiet", "--output_dir", tmp_path / "o") == (0, "", "")


def test_same_seed_gives_the_same_bytes_and_another_seed_others(run, folder, tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        assert run("infer", "--image_path", folder, "--output_dir", tmp_path / name, f"seed={seed}", "name=x")[0] == 0
    a, b, c = ((tmp_path / name / "x.glb").read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_acceleration_runs_the_network_less_often_and_is_taken_off(run, folder, tmp_path, loaded):
    steps = ("model.ss_sampler.inference_steps=9",)
    code, stdout, _ = run(
        "infer", "--image_path", folder, "--output_dir", tmp_path / "o", "--enable_acceleration", "--json", *steps
    )
    assert code == 0
    report = json.loads(stdout)
    assert report["preset"] == "balanced"
    stage = report["acceleration"]["stages"]["sparse_structure"]
    assert 0 < stage["conditional_computed"] == 7 < 9  # 0.8 of the nine steps
    pipeline = loaded[0]["pipeline"]
    assert not [name for name in vars(pipeline) if "accelerat" in name]


def test_module_flags_switch_only_their_modules(run, folder, tmp_path):
    code, stdout, _ = run(
        "infer", "--image_path", folder, "--output_dir", tmp_path / "o", "--enable_ss_cache", "--json"
    )
    techniques = json.loads(stdout)["acceleration"]["techniques"]
    assert code == 0
    assert [name for name in techniques if not name.startswith("exact.")] == ["step_caching"]


@pytest.mark.parametrize("words", [["--ss_cache_stride", "4"], ["acceleration.step_caching.stride=5"]])
def test_large_stride_runs_with_the_known_cliff(run, folder, tmp_path, words):
    code, _, stderr = run(
        "infer", "--image_path", folder, "--output_dir", tmp_path / "o", "acceleration=paper", "--quiet", *words
    )
    assert code == 0
    assert stderr.startswith("warning: ")
    assert "0.375" in stderr and "0.241" in stderr
    assert len(json.loads((tmp_path / "o" / "report.json").read_text())["warnings"]) == 1


def test_setting_without_its_module_is_said_to_do_nothing(run, folder, tmp_path):
    code, _, stderr = run("infer", "--image_path", folder, "--output_dir", tmp_path / "o", "--ss_cache_stride", "2")
    assert code == 0
    assert "--ss_cache_stride changes nothing" in stderr
    assert "--enable_ss_cache" in stderr


def test_pointmap_beside_the_picture_is_used_and_reported(run, folder, tmp_path):
    points = np.ones((24, 32, 3), dtype=np.float16)  # half the picture's size
    np.save(folder / "pointmap.npy", points)
    for choice, used in (("auto", str(folder / "pointmap.npy")), ("none", None)):
        code, stdout, _ = run(
            "infer", "--image_path", folder, "--output_dir", tmp_path / "o", "--json", "--pointmap", choice
        )
        assert code == 0
        assert json.loads(stdout)["inputs"]["pointmap"] == used


def test_pointmap_beside_the_picture_that_does_not_fit_is_left_alone(run, folder, tmp_path):
    np.save(folder / "pointmap.npy", np.ones((10, 40, 3)))
    code, stdout, stderr = run("infer", "--image_path", folder, "--output_dir", tmp_path / "o", "--json")
    assert code == 0
    assert json.loads(stdout)["inputs"]["pointmap"] is None
    assert "is not used" in stderr


def test_earlier_results_of_the_folder_are_replaced_and_others_kept(run, folder, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    (out / "report.json").write_text("old")
    assert run("infer", "--image_path", folder, "--output_dir", out)[0] == 0
    assert (out / "notes.txt").read_text() == "mine"
    assert json.loads((out / "report.json").read_text())["seed"] == 0


def test_nothing_is_left_where_the_run_fails(run, folder, tmp_path, loaded, monkeypatch):
    out = tmp_path / "new" / "out"

    def broken(*_arguments, **_options):
        raise RuntimeError("a defect")

    monkeypatch.setattr("fastsam3d.meshes.writing.export_mesh", broken)
    code, _, stderr = run("infer", "--image_path", folder, "--output_dir", out)
    assert code == 1 and "RuntimeError: a defect" in stderr
    assert not (tmp_path / "new").exists()


def test_without_arguments_the_bundled_example(run, tmp_path):
    code, stdout, stderr = run("infer", f"output_dir={tmp_path / 'o'}", "--json")
    assert code == 0, stderr
    assert json.loads(stdout)["objects"][0]["name"] == "chair_0"


@pytest.mark.parametrize("script", ["infer.py", "infer_scene.py"])
def test_script_ends_bad_input_in_a_line(script, tmp_path):
    """The real process: from another folder, nothing installed on the path, nothing written there."""
    words = ["--output_dir", str(tmp_path / "o"), "--imag_path", "x.png"]
    done = subprocess.run(
        [sys.executable, str(ROOT / script), *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": ""},
        timeout=600,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: unknown flag --imag_path. Did you mean --image_")
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
