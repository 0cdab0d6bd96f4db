"""The viewer: its reader of GLB files under Node.js, and the whole page in a browser."""

from __future__ import annotations

import base64
import importlib.util
import io
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

from fastsam3d.app.viewer import page, scripts
from fastsam3d.meshes.compression.compressing import compress_glb
from fastsam3d.meshes.gltf import Node, glb_bytes
from fastsam3d.meshes.mesh import Mesh
from fastsam3d.meshes.preview import view_rotation
from fastsam3d.meshes.rotations import quaternion_to_matrix
from fastsam3d.meshes.splats.gltf import splats_glb
from fastsam3d.meshes.splats.rendering import render_splats
from fastsam3d.meshes.splats.splats import Splats

NODE, CHROMIUM = shutil.which("node"), shutil.which("chromium") or shutil.which("google-chrome")


def box(color: tuple[float, float, float]) -> Mesh:
    shape = trimesh.creation.box(extents=(0.4, 0.6, 0.8))
    colors = np.tile(np.array(color, dtype=np.float32), (len(shape.vertices), 1))
    return Mesh(shape.vertices.astype(np.float32), shape.faces.astype(np.int64), colors)


@pytest.fixture
def glb() -> bytes:
    """A red box, and a blue one half as large that is turned by 90 degrees about y and moved by (2, 0, 0)."""
    half = float(np.sqrt(0.5))
    moved = Node("blue", box((0, 0, 1)), (0, half, 0, half), (2, 0, 0), (0.5, 0.5, 0.5))
    return glb_bytes([Node("red", box((1, 0, 0))), moved])


def test_page_holds_everything_and_fetches_nothing(glb: bytes) -> None:
    text = page(glb, "a <b> {{model}}.glb")
    assert base64.b64encode(glb).decode() in text
    assert "a &lt;b&gt; {{model}}.glb" in text
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", text)
    assert "default-src 'none'" in text
    # A closing tag inside the scripts would end them early.
    assert "</script" not in scripts()


def parts_read(glb: bytes, folder: Path) -> dict[str, dict]:
    """What the viewer's reader finds in a file, by name, run in Node.js."""
    (folder / "scene.glb").write_bytes(glb)
    program = (
        scripts().split("// Draws Gaussians")[0]
        + """
        const data = require("fs").readFileSync(process.argv[2]);
        Fastsam3dGlb.parse(new Uint8Array(data)).then(({ primitives }) => console.log(JSON.stringify(
          primitives.map((p) => ({ name: p.name, matrix: p.matrix, faces: p.indices.length / 3,
            positions: Array.from(p.positions), color: Array.from(p.colors.slice(0, 3)) })))));
    """
    )
    (folder / "read.js").write_text(program)
    words = [NODE, folder / "read.js", folder / "scene.glb"]
    ran = subprocess.run(words, capture_output=True, text=True, timeout=600)
    assert ran.returncode == 0, ran.stderr
    return {item["name"]: item for item in json.loads(ran.stdout)}


def places_of(item: dict) -> np.ndarray:
    """Vertices of a part in the frame of the scene."""
    matrix = np.array(item["matrix"]).reshape(4, 4).T
    return np.array(item["positions"]).reshape(-1, 3) @ matrix[:3, :3].T + matrix[:3, 3]


@pytest.mark.skipif(NODE is None, reason="needs Node.js, to run the reader outside of a browser")
def test_reader_takes_integers_for_what_they_stand_for(glb: bytes, tmp_path: Path) -> None:
    plain, small = parts_read(glb, tmp_path), parts_read(compress_glb(glb, "quantize"), tmp_path)
    assert set(plain) == set(small) == {"red", "blue"}
    for name, item in small.items():
        # Half of 1/65535 of the longest side, which is 0.8 at most.
        assert np.abs(places_of(item) - places_of(plain[name])).max() < 1e-5
        assert item["color"] == plain[name]["color"] and item["faces"] == plain[name]["faces"]


@pytest.mark.skipif(NODE is None, reason="needs Node.js, to run the reader outside of a browser")
def test_reader_finds_what_trimesh_finds(glb: bytes, tmp_path: Path) -> None:
    read = parts_read(glb, tmp_path)
    loaded = trimesh.load(io.BytesIO(glb), file_type="glb", process=False)
    assert set(read) == {"red", "blue"}
    assert read["red"]["color"] == [1, 0, 0] and read["blue"]["color"] == [0, 0, 1]
    for name, item in read.items():
        matrix, geometry = loaded.graph[name]
        assert np.allclose(np.array(item["matrix"]).reshape(4, 4).T, matrix, atol=1e-6)
        assert np.allclose(np.array(item["positions"]).reshape(-1, 3), loaded.geometry[geometry].vertices, atol=1e-6)
        assert item["faces"] == 12


@pytest.mark.skipif(NODE is None, reason="needs Node.js, to run the reader outside of a browser")
def test_reader_says_what_is_wrong(tmp_path: Path) -> None:
    program = (
        scripts().split("// Draws Gaussians")[0]
        + """
        const short = new ArrayBuffer(24);
        new DataView(short).setUint32(0, 0x46546c67, true);
        new DataView(short).setUint32(4, 2, true);
        new DataView(short).setUint32(12, 99, true);
        Promise.allSettled([new Uint8Array(40), short].map(Fastsam3dGlb.parse)).then((all) =>
          console.log(all.map((one) => one.reason.message).join("|")));
    """
    )
    (tmp_path / "read.js").write_text(program)
    ran = subprocess.run([NODE, tmp_path / "read.js"], capture_output=True, text=True, timeout=600)
    assert ran.stdout.strip() == "this is no GLB file|the file ends too early", ran.stderr


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.skipif(importlib.util.find_spec("playwright") is None, reason="needs Playwright: pip install playwright")
def test_page_in_a_browser(glb: bytes, tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    (tmp_path / "view.html").write_text(page(glb, "two boxes.glb"), encoding="utf-8")
    requests, problems = [], []
    with sync_playwright() as playwright:
        flags = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--no-sandbox"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        view = browser.new_page(viewport={"width": 480, "height": 400}, reduced_motion="reduce")
        view.on("request", lambda request: requests.append(request.url))
        view.on("pageerror", lambda error: problems.append(str(error)))
        view.goto((tmp_path / "view.html").as_uri())
        view.wait_for_selector("body[data-state=ready]")
        facts = view.inner_text("#facts")
        view.evaluate("viewer.setView({azimuth: 0, elevation: 0})")
        front = picture(view.evaluate("viewer.capture()"))
        view.evaluate("viewer.wireframe = true")
        lines = picture(view.evaluate("viewer.capture()"))
        view.evaluate("viewer.wireframe = false")
        view.mouse.move(240, 200)
        view.mouse.down()
        view.mouse.move(200, 200, steps=4)
        view.mouse.up()
        view.mouse.wheel(0, -300)
        view.wait_for_function("viewer.view().zoom > 1.3")
        after = view.evaluate("viewer.view()")
        view.dblclick("#canvas")
        reset = view.evaluate("viewer.view()")
        browser.close()
    assert not problems
    assert [url for url in requests if not url.startswith(("file:", "data:", "blob:"))] == []
    assert facts == "24 faces · 16 vertices · 2 objects: red, blue"
    # Seen from the front (+z) with y up: red on the left, blue on the right.
    red, blue = front[..., 0] > 60, front[..., 2] > 60
    assert not (red & blue).any()
    assert np.nonzero(red)[1].max() < np.nonzero(blue)[1].min()
    # Red is 0.8 high and blue 0.4; red is a little nearer.
    assert np.ptp(np.nonzero(red)[0]) / np.ptp(np.nonzero(blue)[0]) == pytest.approx(2.0, rel=0.1)
    # With lines the faces stay: most of the red box is as it was, and a few thin lines on it are not.
    changed = np.abs(lines - front).max(axis=2)[red] > 25
    assert 0.01 < changed.mean() < 0.3
    assert after["azimuth"] == pytest.approx(20, abs=1)
    assert after["zoom"] > 1.3
    assert (reset["azimuth"], reset["zoom"]) == (30, 1)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.skipif(importlib.util.find_spec("playwright") is None, reason="needs Playwright: pip install playwright")
def test_gaussians_in_a_browser(tmp_path: Path) -> None:
    """The browser's picture of a cloud of Gaussians is that of our own renderer, from the same camera."""
    import torch
    from playwright.sync_api import sync_playwright
    from torch.nn import functional as F

    draw = torch.Generator().manual_seed(0)
    count = 400
    splats = Splats(
        0.4 * F.normalize(torch.randn(count, 3, generator=draw), dim=1),
        quaternion_to_matrix(torch.randn(count, 4, generator=draw)).transpose(1, 2).contiguous(),
        0.03 * torch.exp(0.5 * torch.randn(count, 3, generator=draw)),
        0.3 + 0.6 * torch.rand(count, generator=draw),
        torch.rand(count, 3, generator=draw),
    )
    (tmp_path / "view.html").write_text(page(splats_glb(splats, "cloud"), "cloud"), encoding="utf-8")
    with sync_playwright() as playwright:
        flags = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--no-sandbox"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        view = browser.new_page(viewport={"width": 480, "height": 400}, reduced_motion="reduce")
        view.goto((tmp_path / "view.html").as_uri())
        view.wait_for_selector("body[data-state=ready]")
        view.evaluate("viewer.setView({azimuth: 30, elevation: 20})")
        shown = picture(view.evaluate("viewer.capture()"))
        names = ["_radius", "_center"]
        radius, (x, y, z) = (view.evaluate(f"viewer.{name}") for name in names)
        browser.close()
    size = min(shown.shape[:2])
    top, left = (shown.shape[0] - size) // 2, (shown.shape[1] - size) // 2
    shown = shown[top : top + size, left : left + size, :3] / 255
    half = np.radians(28) / 2
    rotation = torch.from_numpy(view_rotation(30, 20)).float()
    centre, distance = torch.tensor([x, -z, y]), 1.08 * radius / np.sin(half)
    own, cover = render_splats(splats, rotation, centre, distance, size / 2 / np.tan(half), size)
    inside = (cover > 0.98).numpy()
    assert inside.mean() > 0.1
    assert np.abs(own.numpy() - shown)[inside].mean() < 0.02


def picture(url: str) -> np.ndarray:
    image = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGBA")
    pixels = np.asarray(image).astype(int)
    return pixels[..., :3] * (pixels[..., 3:] > 128)
