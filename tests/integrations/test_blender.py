"""The Blender add-on: its command and places, its operators in a stand-in of Blender, all of it in Blender itself."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import stat
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from blender_stand_in import StandIn
from PIL import Image

from fastsam3d.meshes.gltf import Node, glb_bytes
from fastsam3d.meshes.mesh import Mesh
from fastsam3d.sam3d.pipeline.pose import Pose
from fastsam3d.sam3d.scene.placement import to_pixels

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "examples" / "integrations" / "blender_fastsam3d.py"
POSE = {"rotation_wxyz": [0.5, 0.5, -0.5, 0.5], "translation": [0.1, -0.2, 2.0], "scale": [0.5, 0.5, 0.5]}
CORNERS = ([-0.25, -0.5, -0.4], [0.25, 0.3, 0.4])
WAIT = 20.0


@pytest.fixture
def blender(monkeypatch):
    host = StandIn()
    monkeypatch.setitem(sys.modules, "bpy", host.bpy)
    monkeypatch.setitem(sys.modules, "mathutils", host.mathutils)
    return host


@pytest.fixture
def addon(blender):
    spec = importlib.util.spec_from_file_location("blender_fastsam3d", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.register()
    yield module
    module.unregister()
    assert blender.classes == blender.handlers == blender.timers == []
    assert not hasattr(blender.bpy.types.Scene, "fastsam3d")


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.jpg"
    Image.new("RGB", (200, 100), "white").save(path)
    return str(path)


def python_that(tmp_path, body):
    """A program that stands for the user's Python: it keeps its words in words.json, then does `body`."""
    path = tmp_path / "python"
    kept = f"json.dump(words, open({str(tmp_path / 'words.json')!r}, 'w'))"
    path.write_text(f"#!{sys.executable}\nimport json, os, sys, time\nwords = sys.argv[1:]\n{kept}\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IEXEC)
    return str(path)


def python_that_succeeds(tmp_path):
    """It writes a box as the object, and a report as fastsam3d does."""
    low, high = np.array(CORNERS[0]), np.array(CORNERS[1])
    vertices = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)]) * (high - low) + low
    faces = np.array([[0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5]])
    (tmp_path / "box.glb").write_bytes(glb_bytes([Node("box", Mesh(vertices, faces, np.ones((8, 3))))]))
    made = {"name": "box", "pose": POSE, "faces": 4, "files": {"glb": "box.glb"}}
    facts = {
        "model": "mini",
        "preset": "balanced",
        "seed": 3,
        "seconds": {"run": 1.5},
        "camera": {"field_of_view": 45.0},
    }
    (tmp_path / "report.json").write_text(json.dumps(facts | {"objects": [made]}))
    body = f"""
out = words[words.index('--output_dir') + 1]; os.makedirs(out)
print('sparse structure 5/25 (10 s)', file=sys.stderr, flush=True)
print('warning: a doubt', file=sys.stderr)
open(os.path.join(out, 'box.glb'), 'wb').write(open({str(tmp_path / "box.glb")!r}, 'rb').read())
print(open({str(tmp_path / "report.json")!r}).read())"""
    return python_that(tmp_path, body)


def run_modal(operator, context):
    """Sends the timer until the operator ends, as Blender does."""
    assert operator.invoke(context, None) == {"RUNNING_MODAL"}
    end = time.monotonic() + WAIT
    while time.monotonic() < end:
        result = operator.modal(context, SimpleNamespace(type="TIMER"))
        if result != {"RUNNING_MODAL"}:
            return result
        time.sleep(0.02)
    raise AssertionError("the run does not end")


def test_marks_become_flags(addon):
    assert addon.mark_words("BOX", (3, 4, 50, 60), "", "") == ["--box=3,4,50,60"]
    assert addon.mark_words("POINTS", (0,) * 4, "5,6 -7,8", "") == ["--point=5,6", "--point=-7,8"]
    assert addon.mark_words("FILE", (0,) * 4, "", "m.png") == ["--mask_path", "m.png"]
    for nothing in (("BOX", (5, 5, 5, 9), "", ""), ("POINTS", (0,) * 4, "-7,8", ""), ("FILE", (0,) * 4, "", "")):
        with pytest.raises(ValueError, match=r"Mark the object|Choose a mask"):
            addon.mark_words(*nothing)


def test_an_object_stands_on_its_place_at_its_size(addon):
    matrix = np.array(addon.Placement(POSE, CORNERS, 2.0).upright([1.0, 2.0, 0.5]))
    low, high = (matrix @ [*corner, 1.0] for corner in CORNERS)
    # The longest side is y: 0.8, which becomes 2. So x becomes 0.5 * 2.5 and z 0.8 * 2.5.
    np.testing.assert_allclose(high[:3] - low[:3], [1.25, 2.0, 2.0])
    np.testing.assert_allclose((low + high)[:2] / 2, [1.0, 2.0])
    assert low[2] == pytest.approx(0.5)


@pytest.mark.parametrize("size", [0.0, 3.0])
def test_a_camera_sees_the_object_where_the_photo_shows_it(addon, size):
    """Against the library's own pose and projection: same pixels through both ways of placing."""
    points = np.random.default_rng(0).uniform(*CORNERS, (20, 3))
    pose = Pose(*(torch.tensor(POSE[key]) for key in ("rotation_wxyz", "translation", "scale")))
    expected, _ = to_pixels(pose.apply(torch.tensor(points, dtype=torch.float32)).numpy(), 200, 100, 45.0)
    placement = addon.Placement(POSE, CORNERS, size)
    turned = np.array([[0.0, -1.0, 0.0, 3.0], [1.0, 0.0, 0.0, -4.0], [0.0, 0.0, 1.0, 5.0], [0.0, 0.0, 0.0, 1.0]])
    pairs = [
        (placement.upright([1.0, 2.0, 0.5]), placement.camera_for([1.0, 2.0, 0.5])),
        (placement.before(turned.tolist()), turned),
    ]
    for item, camera in pairs:
        columns = np.linalg.inv(np.array(camera)) @ np.array(item) @ np.c_[points, np.ones(20)].T
        focal = 100 / math.tan(math.radians(45.0) / 2)
        right, up, depth = columns[0], columns[1], -columns[2]
        assert (depth > 0).all()
        np.testing.assert_allclose(np.c_[100 + focal * right / depth, 50 - focal * up / depth], expected, atol=1e-3)
    np.testing.assert_allclose(np.linalg.det(np.array(pairs[0][1])[:3, :3]), 1.0)


def test_the_mouse_marks_a_box_and_points(addon, blender, photo):
    context = blender.context(addon, "python", photo)
    settings = context.scene.fastsam3d

    def event(kind, value, x, y, ctrl=False):
        # The region begins at (50, 30), and the picture fills it, one pixel a pixel: y counts from below there.
        return SimpleNamespace(type=kind, value=value, mouse_x=50 + x, mouse_y=30 + 100 - y, ctrl=ctrl)

    mark = blender.operator(addon.Mark)
    assert mark.invoke(context, None) == {"RUNNING_MODAL"}
    mark.modal(context, event("LEFTMOUSE", "PRESS", 120, 80))
    mark.modal(context, event("MOUSEMOVE", "NOTHING", 60, 40))
    assert mark.modal(context, event("LEFTMOUSE", "RELEASE", 20, -5)) == {"FINISHED"}
    assert settings.box == (20, 0, 120, 80)
    settings.marking = "POINTS"
    mark = blender.operator(addon.Mark)
    mark.invoke(context, None)
    mark.modal(context, event("LEFTMOUSE", "PRESS", 30, 40))
    mark.modal(context, event("LEFTMOUSE", "PRESS", 150, 90, ctrl=True))
    assert mark.modal(context, event("RET", "PRESS", 0, 0)) == {"FINISHED"}
    assert settings.points == "30,40 -150,90"
    mark = blender.operator(addon.Mark)
    mark.invoke(context, None)
    mark.modal(context, event("LEFTMOUSE", "PRESS", 1, 1))
    assert mark.modal(context, event("ESC", "PRESS", 0, 0)) == {"CANCELLED"}
    assert settings.points == "30,40 -150,90"


class Layout:
    """A layout that keeps the names that it is asked to show."""

    def __init__(self):
        self.shown, self.use_property_split = [], False

    def row(self):
        return self

    def prop(self, data, name, expand=False):
        assert hasattr(data, name)
        self.shown.append(name)

    def operator(self, name, text=""):
        self.shown.append(text or name)

    def label(self, text, icon):
        self.shown.append(text)


def test_the_panel_shows_what_the_way_of_marking_needs(addon, blender, photo):
    context = blender.context(addon, "python", photo)
    settings = context.scene.fastsam3d

    def shown(**changes):
        for name, value in changes.items():
            setattr(settings, name, value)
        panel = addon.FASTSAM3D_PT_panel()
        panel.layout = Layout()
        panel.draw(context)
        return panel.layout.shown

    common = ["model", "preset", "seed", "more", "placement", "size", "add_camera", "fastsam3d.reconstruct"]
    assert shown() == ["marking", "Drag a Box", "box", *common]
    assert shown(marking="POINTS") == ["marking", "Click Points", "points", *common]
    with_weights = [*common[:1], "checkpoint_dir", *common[1:]]
    assert shown(marking="FILE", model="sam3d", status="at work") == ["marking", "mask", *with_weights, "at work"]
    context.space_data.image = None
    assert shown() == ["Open a picture in this editor"]
    preferences = addon.Preferences()
    preferences.layout, preferences.python = Layout(), ""
    preferences.draw(context)
    assert preferences.layout.shown == ["python"]


def test_a_run_shows_progress_and_imports_the_mesh(addon, blender, photo, tmp_path):
    context = blender.context(addon, python_that_succeeds(tmp_path), photo)
    settings = context.scene.fastsam3d
    settings.box, settings.size, settings.seed, settings.add_camera = (20, 0, 120, 80), 2.0, 3, True
    settings.more = "device=cpu name='two words'"
    (tmp_path / "pointmap.npy").write_bytes(b"depth")
    operator = blender.operator(addon.Reconstruct)
    assert run_modal(operator, context) == {"FINISHED"}
    words = json.loads((tmp_path / "words.json").read_text())
    assert words[:3] == ["-m", "fastsam3d", "infer"]
    assert {"--box=20,0,120,80", "acceleration=balanced", "model=mini", "device=cpu", "name=two words"} <= set(words)
    assert words[words.index("--pointmap") + 1] == str(tmp_path / "pointmap.npy")
    handed = Image.open(words[words.index("--image_path") + 1])
    assert (handed.format, handed.size) == ("PNG", (200, 100))
    assert Path(handed.filename).name == "photo.png"
    assert blender.shown[-1] is None
    mesh, camera = blender.bpy.data.objects
    placement = addon.Placement(POSE, CORNERS, 2.0)
    np.testing.assert_allclose(mesh.matrix_world.rows, placement.upright([1.0, 2.0, 0.5]), atol=1e-6)
    np.testing.assert_allclose(camera.matrix_world.rows, placement.camera_for([1.0, 2.0, 0.5]), atol=1e-6)
    assert 2 * math.degrees(math.atan(36 / 2 / camera.data.lens)) == pytest.approx(45.0)
    assert (context.scene.render.resolution_x, context.scene.render.resolution_y) == (200, 100)
    assert context.scene.camera is camera
    assert mesh.notes["fastsam3d"] == "mini, balanced, seed 3"
    assert ("WARNING", "a doubt") in operator.told
    assert operator.told[-1] == ("INFO", "box: 4 faces, 1.5 s")
    settings.placement = "CAMERA"
    assert blender.operator(addon.Reconstruct).execute(context) == {"FINISHED"}
    again = blender.bpy.data.objects[-1]
    np.testing.assert_allclose(again.matrix_world.rows, placement.before(list(camera.matrix_world)), atol=1e-6)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (
            "print('error: the mask is empty: mark again.', file=sys.stderr); sys.exit(2)",
            "the mask is empty: mark again.",
        ),
        (
            "print('python: No module named fastsam3d', file=sys.stderr); sys.exit(1)",
            "has no fastsam3d. Choose another",
        ),
        ("print('Segmentation fault', file=sys.stderr); sys.exit(139)", "ended with code 139. Segmentation fault"),
    ],
)
def test_a_failed_run_is_told_and_imports_nothing(addon, blender, photo, tmp_path, body, said):
    context = blender.context(addon, python_that(tmp_path, body), photo)
    context.scene.fastsam3d.box = (20, 0, 120, 80)
    operator = blender.operator(addon.Reconstruct)
    assert run_modal(operator, context) == {"CANCELLED"}
    assert operator.told[-1][0] == "ERROR"
    assert said in operator.told[-1][1]
    assert blender.bpy.data.objects == []


def test_what_is_missing_is_told_before_a_process_starts(addon, blender, photo, tmp_path):
    context = blender.context(addon, str(tmp_path / "nowhere" / "python"), photo)
    operator = blender.operator(addon.Reconstruct)
    assert operator.execute(context) == {"CANCELLED"}
    assert "Drag a Box" in operator.told[-1][1]
    context.scene.fastsam3d.box = (20, 0, 120, 80)
    assert operator.execute(context) == {"CANCELLED"}
    assert "nowhere" in operator.told[-1][1]
    context.space_data.image = None
    assert operator.execute(context) == {"CANCELLED"}
    assert "Open a picture" in operator.told[-1][1]


def test_escape_ends_the_process(addon, blender, photo, tmp_path):
    context = blender.context(addon, python_that(tmp_path, "time.sleep(60)"), photo)
    context.scene.fastsam3d.box = (20, 0, 120, 80)
    operator = blender.operator(addon.Reconstruct)
    operator.invoke(context, None)
    assert operator.modal(context, SimpleNamespace(type="MOUSEMOVE")) == {"PASS_THROUGH"}
    assert operator.modal(context, SimpleNamespace(type="ESC")) == {"CANCELLED"}
    assert operator.job.process.poll() is not None
    assert operator.told[-1] == ("WARNING", "Stopped. Nothing was imported.")


def python_with_blender():
    """The Python that has `bpy`: the one of FASTSAM3D_BPY_PYTHON, else this one."""
    named = os.environ.get("FASTSAM3D_BPY_PYTHON")
    if named or importlib.util.find_spec("bpy") is not None:
        return named or sys.executable
    return pytest.skip("bpy is not installed, and FASTSAM3D_BPY_PYTHON names no Python that has it")


@pytest.mark.slow
def test_blender_itself_places_the_chair_where_the_photo_shows_it(tmp_path):
    picture, mask = ROOT / "examples/chair/image.png", ROOT / "examples/chair/0.png"
    session, out = ROOT / "tests/helpers/blender_session.py", tmp_path / "found.json"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"BLENDER_USER_RESOURCES": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
    words = [python_with_blender(), session, FILE, sys.executable, picture, mask, out, "device=cpu", "threads=1"]
    subprocess.run([str(word) for word in words], check=True, timeout=300, env=environment, capture_output=True)
    found = json.loads(out.read_text())
    assert "Name the Python" in found["no python"]["error"]
    assert "Drag a Box" in found["not marked"]["error"]
    assert "unknown preset" in found["no such preset"]["error"]
    mesh, camera = found["on the cursor"]["objects"]
    assert mesh["low"][2] == pytest.approx(0.5, abs=1e-4)
    assert max(np.subtract(mesh["high"], mesh["low"])) == pytest.approx(2.0, abs=1e-4)
    assert mesh["colours"] == 1
    inside = np.asarray(Image.open(mask))[..., 3] > 127
    rows, columns = np.nonzero(inside)
    height, width = inside.shape
    box = [[columns.min() / width, 1 - rows.max() / height], [columns.max() / width, 1 - rows.min() / height]]
    np.testing.assert_allclose(mesh["seen"], box, atol=0.02)
    (again,) = found["before the camera"]["objects"]
    np.testing.assert_allclose(again["seen"], mesh["seen"], atol=1e-4)
    assert found["resolution"] == [width, height]
    assert found["left behind"] is False
    if found["box"] is not None:
        x, y = ([pixel[axis] for pixel in found["box"]] for axis in (0, 1))
        # Half of the picture's pixels, counted from below: x 20 to 120, y 20 to 90.
        np.testing.assert_allclose([min(x), max(x), min(y), max(y)], [20, 120, 20, 90], atol=1.5)
        colors = {(x < 100, blue > 0.5) for x, _, _, _, blue in found["points"]}
        assert colors == {(True, False), (False, True)}
    assert camera["type"] == "CAMERA"
