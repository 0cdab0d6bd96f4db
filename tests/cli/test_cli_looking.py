"""`view`, `turntable`, and the files that `--export` and its companions write."""

from __future__ import annotations

import json
import re
import runpy
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from fastsam3d.cli.commands.view import make_server
from fastsam3d.cli.flags import parse
from fastsam3d.cli.main import VERBS, main
from fastsam3d.errors import UserError
from fastsam3d.jobs.object_files import write_object
from fastsam3d.jobs.output_folder import OutputFolder
from fastsam3d.jobs.request import request_with
from fastsam3d.meshes.formats import mesh_formats, registry
from fastsam3d.meshes.formats.ply import encode_gaussians
from fastsam3d.meshes.gaussians import Gaussian
from fastsam3d.meshes.mesh import Mesh


@pytest.fixture
def vase(run, folder, tmp_path):
    """Files of one object, and the folder that they are in."""
    out = tmp_path / "out"
    assert run("infer", "--image_path", folder, "--output_dir", out, "--export", "glb,stl,obj,ply", "name=vase")[0] == 0
    return out


def test_export_writes_what_was_asked_for(vase):
    assert {path.name for path in vase.iterdir()} == {
        "vase.glb",
        "vase.obj",
        "vase.stl",
        "vase_points.ply",
        "report.json",
    }
    report = json.loads((vase / "report.json").read_text())
    assert {kind: axes["up"] for kind, axes in report["axes"].items()} == {
        "glb": "+y",
        "obj": "+y",
        "stl": "+z",
        "ply": "+z",
    }
    assert "object units" in report["units"]
    assert report["objects"][0]["files"]["ply_holds"] == "points of the surface"
    # The axes that the report names are those of the files: the vase is one thing, turned by a quarter.
    up = {kind: trimesh.load(vase / f"vase.{kind}", process=False) for kind in ("glb", "obj", "stl")}
    assert up["glb"].extents == pytest.approx(up["obj"].extents, abs=1e-4)
    assert up["stl"].extents[[0, 2, 1]] == pytest.approx(up["glb"].extents, abs=1e-4)


def test_fewer_faces_closed_and_textured(run, folder, tmp_path):
    for module in ("fast_simplification", "xatlas", "scipy"):
        pytest.importorskip(module)
    words = ("--faces", 500, "--texture", 128, "--watertight", "--turntable", "name=vase", "preview=false")
    code, stdout, stderr = run("infer", "--image_path", folder, "--output_dir", tmp_path / "o", *words)
    assert code == 0, stderr
    (item,) = json.loads((tmp_path / "o" / "report.json").read_text())["objects"]
    assert item["exported"]["watertight"] is True and item["exported"]["texture"] == 128
    assert item["exported"]["faces"] <= 550 < item["faces"]
    mesh = trimesh.load(tmp_path / "o" / "vase.glb", process=False).to_mesh()
    assert len(mesh.faces) == item["exported"]["faces"]
    assert mesh.visual.material.baseColorTexture.size == (128, 128)
    assert Image.open(tmp_path / "o" / "vase_turntable.gif").n_frames == 36
    assert item["files"]["turntable"] == ["vase_turntable.png", "vase_turntable.gif"]
    assert f"{item['exported']['faces']:,} faces (of {item['faces']:,})" in stdout
    assert f"{item['exported']['vertices']:,} vertices (of {item['vertices']:,})" in stdout


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--export fbx", "export fbx is not possible: give some of glb, obj, stl, ply"),
        ("--export ,", "export of nothing"),
        ("--faces 3", "faces is 3: a whole number from 4"),
        ("--texture 5", "texture is 5: a whole number from 16"),
        ("watertight=perhaps", "watertight=perhaps is not possible"),
        ("batch=0", "batch is 0"),
    ],
)
def test_unusable_settings_are_named(run, folder, tmp_path, words, expected):
    code, _, stderr = run("infer", "--image_path", folder, "--output_dir", tmp_path / "o", *words.split())
    assert code == 2
    assert expected in stderr


def test_gaussians_are_called_by_their_name_alone(tmp_path):
    shapes = {"xyz": (9, 3), "features_dc": (9, 1, 3), "scaling": (9, 3), "rotation": (9, 4), "opacity": (9, 1)}
    gaussian = Gaussian(**{name: torch.rand(shape) for name, shape in shapes.items()})
    result = SimpleNamespace(mesh=None, gaussian=gaussian)
    settings = SimpleNamespace(export=("glb", "ply"), preview=False, turntable=False)
    with OutputFolder(tmp_path / "o") as folder:
        written = write_object(folder, "vase", result, None, SimpleNamespace(marks=None), settings)
        folder.publish()
    assert written.files == {"ply": "vase.ply", "ply_holds": "Gaussians"}
    assert b"property float f_dc_0" in (tmp_path / "o" / "vase.ply").read_bytes()
    settings.export = ("glb",)
    with (
        OutputFolder(tmp_path / "p") as folder,
        pytest.raises(UserError, match="Add ply or splat or splats to --export"),
    ):
        write_object(folder, "vase", result, None, SimpleNamespace(marks=None), settings)


@pytest.mark.parametrize(("drawn", "meshless", "height"), [(True, False, 3), (True, True, 2), (False, False, 2)])
def test_gaussians_in_the_preview_are_an_option(tmp_path, drawn, meshless, height):
    corner = torch.tensor([[0.0, 0, 0], [0.4, 0, 0], [0, 0.4, 0]])
    shapes = {"features_dc": (3, 1, 3), "scaling": (3, 3), "rotation": (3, 4), "opacity": (3, 1)}
    gaussian = Gaussian(xyz=corner, **{name: torch.ones(shape) for name, shape in shapes.items()})
    mesh = None if meshless else Mesh(corner.numpy(), np.array([[0, 1, 2]]), np.ones((3, 3), dtype=np.float32))
    picture = SimpleNamespace(pixels=np.zeros((8, 8, 3), dtype=np.uint8))
    mask = SimpleNamespace(pixels=np.ones((8, 8), dtype=bool), marks=None)
    settings = request_with(export=["ply"], preview_splats=drawn)
    result = SimpleNamespace(mesh=mesh, gaussian=gaussian)
    with OutputFolder(tmp_path / "o") as folder:
        files = write_object(folder, "vase", result, picture, mask, settings).files
        folder.publish()
    assert Image.open(tmp_path / "o" / files["preview"]).size == (4 * 320, height * 320)


def test_a_missing_package_is_named_before_anything_runs(run, folder, tmp_path, loaded, monkeypatch):
    monkeypatch.setitem(sys.modules, "xatlas", None)
    for verb, words in (("infer", ("--image_path", folder)), ("scene", ("--image_dir", folder))):
        code, _, stderr = run(verb, *words, "--output_dir", tmp_path / "o", "--texture", 64)
        assert code == 2
        assert "pip install 'fastsam3d[texture]'" in stderr
    assert loaded == [] and not (tmp_path / "o").exists()


def test_turntable_of_a_file(vase, capsys):
    assert main(["turntable", str(vase / "vase.glb"), "--frames", "4", "--size", "32"]) == 0
    assert "vase_turntable.gif" in capsys.readouterr().out
    assert Image.open(vase / "vase_turntable.png").size == (4 * 32, 32)
    assert main(["turntable", str(vase / "vase_points.ply")]) == 2
    splats = vase / "splats.ply"
    splats.write_bytes(encode_gaussians(Gaussian(*(torch.rand(5, *size) for size in ((3,), (1, 3), (3,), (4,), (1,))))))
    assert main(["turntable", str(splats), "--frames", "4", "--size", "32"]) == 0
    assert Image.open(vase / "splats_turntable.png").size == (4 * 32, 32)
    words = ["turntable", str(vase / "vase.glb"), "--gaussians", str(splats), "--frames", "4", "--size", "32"]
    assert main(words) == 0
    assert Image.open(vase / "vase_turntable.png").size == (4 * 32, 64)
    assert "points only" in capsys.readouterr().err
    assert main(["turntable", str(vase / "vase.glb"), "--size", "9"]) == 2
    assert "give 16 to 2048" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["vase.glb", "vase.obj", "vase.stl", "vase_points.ply"])
def test_view_writes_a_page(vase, name, capsys):
    assert main(["view", str(vase / name), "--html", str(vase / "page.html")]) == 0
    text = (vase / "page.html").read_text(encoding="utf-8")
    assert f"<h1>{name}</h1>" in text and "Fastsam3dViewer.mount" in text


def test_a_format_from_outside_the_package_is_exported_and_shown(run, folder, tmp_path, monkeypatch, capsys):
    mesh_formats()
    monkeypatch.setattr(registry, "_FORMATS", dict(registry._FORMATS))
    runpy.run_path(str(Path(__file__).resolve().parents[1] / "helpers" / "off_format.py"))
    out = tmp_path / "o"
    code, _, stderr = run("infer", "--image_path", folder, "--output_dir", out, "--export", "ply,off", "name=vase")
    assert code == 0, stderr
    assert {path.name for path in out.iterdir()} == {"vase.off", "vase_points.ply", "report.json"}
    report = json.loads((out / "report.json").read_text())
    assert list(report["axes"]) == ["off", "ply"] and report["axes"]["off"]["up"] == "+z"
    assert report["objects"][0]["files"]["off"] == "vase.off"
    assert len(trimesh.load(out / "vase.off").faces) == report["objects"][0]["faces"]
    assert main(["view", str(out / "vase.off"), "--html", str(out / "page.html")]) == 0
    assert "<h1>vase.off</h1>" in (out / "page.html").read_text(encoding="utf-8")
    assert main(["turntable", str(out / "vase.off"), "--frames", "2", "--size", "16"]) == 0
    for verb in ("infer", "view", "turntable"):
        capsys.readouterr()
        with pytest.raises(SystemExit):
            main([verb, "--help"])
        assert ("of glb,obj,off,stl,ply" if verb == "infer" else ".obj, .off,") in capsys.readouterr().out


def test_view_names_what_cannot_be_shown(tmp_path, capsys):
    assert main(["view", str(tmp_path / "missing.glb")]) == 2
    assert "there is no file" in capsys.readouterr().err


def test_view_does_not_write_its_page_over_the_file(vase, capsys):
    name = next(path for path in vase.iterdir() if path.suffix == ".glb").name
    before = (vase / name).read_bytes()
    (vase / "link.html").symlink_to(vase / name)
    for page in (name, "link.html"):
        assert main(["view", str(vase / name), "--html", str(vase / page)]) == 2
        assert "would be overwritten" in capsys.readouterr().err
    assert (vase / name).read_bytes() == before
    (vase / "link.html").unlink()


def test_the_server_gives_its_page_to_this_machine_only():
    server = make_server("<p>here</p>")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        host, port = server.server_address[:2]
        assert host == "127.0.0.1"
        address = f"http://127.0.0.1:{port}"
        with urllib.request.urlopen(address, timeout=600) as answer:
            assert answer.read() == b"<p>here</p>"
        elsewhere = urllib.request.Request(f"{address}/", headers={"Host": "evil.example"})
        for request in (f"{address}/etc/passwd", f"{address}/../setup.py", elsewhere):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(request, timeout=600)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_commands_of_the_document_can_be_given():
    text = (Path(__file__).resolve().parents[2] / "docs" / "scenes_and_files.md").read_text(encoding="utf-8")
    commands = [line.split("#")[0].split() for line in text.splitlines() if line.startswith("python infer")]
    assert len(commands) == 7
    for _, script, *words in commands:
        parse(words, script, scene=script == "infer_scene.py")
    verbs = set(re.findall(r"^python -m fastsam3d (\w+)", text, flags=re.MULTILINE))
    assert verbs == {"view", "turntable", "finish"} and verbs <= set(VERBS)
