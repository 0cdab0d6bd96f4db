"""The viewer's page in headless Chromium: what it draws, and how it answers the mouse."""

from __future__ import annotations

import base64
import io
import json
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from fastsam3d.app.viewer import page
from fastsam3d.meshes.gltf import Node, glb_bytes
from fastsam3d.meshes.gltf_reading import split_glb
from fastsam3d.meshes.mesh import Mesh, TexturedMesh
from fastsam3d.meshes.rotations import quaternion_to_matrix
from fastsam3d.meshes.splats.gltf import splats_glb
from fastsam3d.meshes.splats.rendering import render_splats
from fastsam3d.meshes.splats.splats import Splats
from fastsam3d.meshes.viewpoint import view_rotation

pytestmark = pytest.mark.slow


@contextmanager
def opened(browser: Any, glb: bytes, folder: Path) -> Iterator[Any]:
    """The page of a file, once it shows it; nothing may go wrong in it, and it may ask no other machine."""
    (folder / "view.html").write_text(page(glb, "file"), encoding="utf-8")
    requests, problems = [], []
    view = browser.new_page(viewport={"width": 480, "height": 400}, reduced_motion="reduce")
    view.on("request", lambda request: requests.append(request.url))
    view.on("pageerror", lambda error: problems.append(str(error)))
    view.goto((folder / "view.html").as_uri())
    view.wait_for_selector("body[data-state=ready]")
    yield view
    view.close()
    assert not problems
    assert [url for url in requests if not url.startswith(("file:", "data:", "blob:"))] == []


def picture(url: str) -> np.ndarray:
    image = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGBA")
    pixels = np.asarray(image).astype(int)
    return pixels[..., :3] * (pixels[..., 3:] > 128)


def test_page(browser: Any, glb: bytes, tmp_path: Path) -> None:
    with opened(browser, glb, tmp_path) as view:
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


def test_gaussians(browser: Any, tmp_path: Path) -> None:
    """The browser's picture of a cloud of Gaussians is that of our own renderer, from the same camera."""
    draw = torch.Generator().manual_seed(0)
    count = 400
    splats = Splats(
        0.4 * F.normalize(torch.randn(count, 3, generator=draw), dim=1),
        quaternion_to_matrix(torch.randn(count, 4, generator=draw)).transpose(1, 2).contiguous(),
        0.03 * torch.exp(0.5 * torch.randn(count, 3, generator=draw)),
        0.3 + 0.6 * torch.rand(count, generator=draw),
        torch.rand(count, 3, generator=draw),
    )
    with opened(browser, splats_glb(splats, "cloud"), tmp_path) as view:
        view.evaluate("viewer.setView({azimuth: 30, elevation: 20})")
        shown = picture(view.evaluate("viewer.capture()"))
        names = ["_radius", "_center"]
        radius, (x, y, z) = (view.evaluate(f"viewer.{name}") for name in names)
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


def square(tilt: tuple[float, float, float] | None, tangent: tuple[float, ...] | None, mirrored: bool = False) -> Mesh:
    """A grey square that faces the viewer, 0.8 wide, with one normal in all of its normal map.

    Args:
        tilt: the normal in tangent space; None for no normal map.
        tangent: of all vertices, in the object frame; None for a file without tangents.
        mirrored: u grows to the left.
    """
    x, z = np.array([[-0.4, 0.4, 0.4, -0.4], [-0.4, -0.4, 0.4, 0.4]], dtype=np.float32)
    u, v = (0.5 - x / 0.8 if mirrored else 0.5 + x / 0.8), 0.5 - z / 0.8
    still, grey = np.zeros(4, dtype=np.float32), np.full((8, 8, 3), GREY, dtype=np.uint8)
    colored = None if tilt is None else np.rint((np.array(tilt) + 1) / 2 * 255).astype(np.uint8)
    return TexturedMesh(
        np.stack([x, still, z], axis=1),
        np.array([[0, 1, 2], [0, 2, 3]]),
        np.ones((4, 3), dtype=np.float32),
        np.tile(np.float32([0, -1, 0]), (4, 1)),
        np.stack([u, v], axis=1),
        grey,
        tangents=None if tangent is None else np.tile(np.float32(tangent), (4, 1)),
        normal_map=None if colored is None else np.broadcast_to(colored, grey.shape),
    )


GREY = 128
SIDEWAYS, UPWARD = (0.6, 0, 0.8), (0, 0.6, 0.8)
PLUS, MINUS = (1, 0, 0, 1), (-1, 0, 0, -1)
"""Tangents to the right and to the left; the bitangent points up with both."""
MIRRORED, TURNED = {"scale": (-1, 1, 1)}, {"rotation": (0, 0, 0.5**0.5, 0.5**0.5)}
"""Poses of nodes; the second turns right to up."""
SQUARES = {
    "no map": (square(None, PLUS), {}, (0, 0, 1)),
    "tangent, sideways": (square(SIDEWAYS, PLUS), {}, (0.6, 0, 0.8)),
    "tangent, upward": (square(UPWARD, PLUS), {}, (0, 0.6, 0.8)),
    "tangent to the left, sideways": (square(SIDEWAYS, MINUS, mirrored=True), {}, (-0.6, 0, 0.8)),
    "tangent to the left, upward": (square(UPWARD, MINUS, mirrored=True), {}, (0, 0.6, 0.8)),
    "no tangent, sideways": (square(SIDEWAYS, None), {}, (0.6, 0, 0.8)),
    "no tangent, upward": (square(UPWARD, None), {}, (0, 0.6, 0.8)),
    "no tangent, mirrored, sideways": (square(SIDEWAYS, None, mirrored=True), {}, (-0.6, 0, 0.8)),
    "no tangent, mirrored, upward": (square(UPWARD, None, mirrored=True), {}, (0, 0.6, 0.8)),
    "mirrored node, sideways": (square(SIDEWAYS, PLUS), MIRRORED, (-0.6, 0, 0.8)),
    "mirrored node, upward": (square(UPWARD, PLUS), MIRRORED, (0, 0.6, 0.8)),
    "mirrored node, no tangent, sideways": (square(SIDEWAYS, None), MIRRORED, (-0.6, 0, 0.8)),
    "turned node, upward": (square(UPWARD, PLUS), TURNED, (-0.6, 0, 0.8)),
    "turned node, no tangent, sideways": (square(SIDEWAYS, None), TURNED, (0, 0.6, 0.8)),
    "turned node, no tangent, upward": (square(UPWARD, None), TURNED, (-0.6, 0, 0.8)),
    "half": (square(SIDEWAYS, PLUS), {}, (0.3 / 0.73**0.5, 0, 0.8 / 0.73**0.5)),
}
"""The mesh, the pose of its node, and the normal to the viewer's right, up, and towards the viewer."""


def shade(normal: tuple[float, float, float]) -> float:
    """The grey, 0 to 255, that the light of the previews gives a square of GREY."""

    def lamp(towards: tuple[float, float, float], strength: float) -> float:
        return strength * max((np.dot(normal, towards) / np.linalg.norm(towards) + 0.15) / 1.15, 0)

    light = 0.22 + 0.2 * (normal[1] + 1) / 2 + lamp((-0.45, 0.65, 0.62), 0.62) + lamp((0.75, 0.1, 0.65), 0.22)
    linear = light * ((GREY / 255 + 0.055) / 1.055) ** 2.4
    return 255 * (1.055 * linear ** (1 / 2.4) - 0.055)


def with_half_the_tilt(glb: bytes, name: str) -> bytes:
    """The file with a scale of one half for the normal map of one node."""
    document, binary = split_glb(glb)
    (node,) = (node for node in document["nodes"] if node["name"] == name)
    (primitive,) = document["meshes"][node["mesh"]]["primitives"]
    document["materials"][primitive["material"]]["normalTexture"]["scale"] = 0.5
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(binary), b"BIN\0") + binary
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def test_normal_maps(browser: Any, tmp_path: Path) -> None:
    """Squares whose maps tilt all normals one way have the light of that normal, worked out here."""
    places = {name: (index % 4 - 1.5, 1.5 - index // 4) for index, name in enumerate(SQUARES)}
    nodes = [
        Node(name, mesh, translation=(*places[name], 0), **pose) for name, (mesh, pose, _normal) in SQUARES.items()
    ]
    with opened(browser, with_half_the_tilt(glb_bytes(nodes), "half"), tmp_path) as view:
        radius = view.evaluate("viewer._radius")
        seen = {}
        for azimuth in (0, 180):
            view.evaluate(f"viewer.setView({{azimuth: {azimuth}, elevation: 0}})")
            seen[azimuth] = picture(view.evaluate("viewer.capture()"))
    height, width = seen[0].shape[:2]
    assert height < width
    # Half of the view's height sees 14 degrees, and the whole object fits in at 1.08 times its distance.
    pixels = height / 2 / np.tan(np.radians(14)) / (1.08 * radius / np.sin(np.radians(14)))
    for name, (_mesh, _pose, (right, up, towards)) in SQUARES.items():
        x, y = places[name]
        row = round(height / 2 - pixels * y)
        front, back = seen[0][row, round(width / 2 + pixels * x)], seen[180][row, round(width / 2 - pixels * x)]
        assert front == pytest.approx(shade((right, up, towards)), abs=2), name
        # From behind, the whole frame is turned round: a bump becomes a dent.
        assert back == pytest.approx(shade((right, -up, towards)), abs=2), name
