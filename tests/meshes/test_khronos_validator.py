"""Our GLB files before the Khronos glTF validator: no errors, no warnings.

Needs Node.js and its package `gltf-validator` (`npm install gltf-validator`), where Node.js looks for packages: set
`NODE_PATH` to the folder `node_modules` that holds it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from known_shapes import ball

from fastsam3d.meshes.compression.compressing import compress_glb
from fastsam3d.meshes.finishing.finishing import finish
from fastsam3d.meshes.formats.glb import encode_glb
from fastsam3d.meshes.gaussians import Gaussian
from fastsam3d.meshes.gltf import Node, glb_bytes
from fastsam3d.meshes.mesh import Mesh, TexturedMesh
from fastsam3d.meshes.splats.gltf import splats_glb
from fastsam3d.meshes.texture import bake_texture

WARNING = 1
"""Severity of warnings; errors have 0."""
VALIDATE = """
const fs = require("fs");
require("gltf-validator").validateBytes(new Uint8Array(fs.readFileSync(process.argv[1]))).then((report) =>
  process.stdout.write(JSON.stringify(report)));
"""


@cache
def node() -> str | None:
    """The path of Node.js, if it finds the validator."""
    path = shutil.which("node")
    found = path and subprocess.run([path, "-e", "require('gltf-validator')"], capture_output=True).returncode == 0
    return path if found else None


pytestmark = pytest.mark.skipif(node() is None, reason="needs Node.js with the package gltf-validator")


def validated(data: bytes, path: Path, extension: str | None = None) -> dict:
    path.write_bytes(data)
    found = subprocess.run([str(node()), "-e", VALIDATE, str(path)], capture_output=True, check=True, timeout=60)
    report = json.loads(found.stdout)
    messages = report["issues"]["messages"]
    if extension is not None and any(message["code"] == "UNSUPPORTED_EXTENSION" for message in messages):
        messages = [message for message in messages if f"/{extension}:" not in message["pointer"]]
    bad = [
        message for message in messages if message["severity"] <= WARNING and message["code"] != "UNSUPPORTED_EXTENSION"
    ]
    assert not bad
    return report["info"]


def test_a_mesh_with_vertex_colours(tmp_path):
    assert validated(encode_glb(ball(3)), tmp_path / "a.glb")["totalTriangleCount"] == len(ball(3).faces)


def test_a_textured_mesh_with_metal(tmp_path):
    pytest.importorskip("xatlas", reason="textures need xatlas")
    plain = bake_texture(ball(2), 64)
    material = np.zeros((64, 64, 2), dtype=np.uint8)
    parts = (plain.vertices, plain.faces, plain.vertex_colors, plain.normals, plain.uv, plain.texture)
    assert validated(encode_glb(plain), tmp_path / "a.glb")["materialCount"] == 1
    assert validated(encode_glb(TexturedMesh(*parts, material)), tmp_path / "b.glb")["hasTextures"]


def test_points_and_placed_nodes(tmp_path):
    points = Mesh(ball(1).vertices, np.zeros((0, 3), dtype=np.int64), ball(1).vertex_colors)
    turned = Node("b", ball(2), rotation=(0, 0, 0, 1), translation=(1, 2, 3), scale=(2, 2, 2))
    assert (
        validated(glb_bytes([Node("a", points), turned], {"up": [0, 1, 0]}), tmp_path / "a.glb")["drawCallCount"] == 2
    )


def test_gaussians(tmp_path):
    """Validators before the extension was ratified do not know it, and take the names of its attributes for errors."""
    draw = torch.Generator().manual_seed(0)
    sizes = (3,), (1, 3), (3,), (4,), (1,)
    gaussian = Gaussian(*(torch.randn(9, *size, generator=draw) for size in sizes))
    assert validated(splats_glb(gaussian), tmp_path / "a_splats.glb", "KHR_gaussian_splatting")["totalVertexCount"] == 9


def test_a_quantized_scene_passes(tmp_path: Path) -> None:
    pytest.importorskip("xatlas")
    nodes = [Node("a", ball(1), (0, 0, 0.6, 0.8), (1, 0, 0), (2, 2, 2)), Node("b", bake_texture(ball(2), 64))]
    info = validated(compress_glb(glb_bytes(nodes), "quantize"), tmp_path / "q.glb")
    assert info["extensionsRequired"] == ["KHR_mesh_quantization"]


def test_the_validator_finds_nothing_else_in_a_draco_file(tmp_path: Path) -> None:
    pytest.importorskip("DracoPy", reason="writes Draco's coding")
    # It does not know the extension, and says so as an information.
    info = validated(compress_glb(encode_glb(ball(2)), "draco"), tmp_path / "d.glb")
    assert info["extensionsRequired"] == ["KHR_draco_mesh_compression"]


def test_a_normal_map_and_its_tangents(tmp_path: Path) -> None:
    pytest.importorskip("xatlas")
    finished = finish(ball(3), faces=None, texture=64, normal_map=True)
    for kind in ("none", "quantize"):
        info = validated(compress_glb(encode_glb(finished.mesh), kind), tmp_path / f"{kind}.glb")
        assert info["hasTextures"] and info["maxAttributes"] == 4
