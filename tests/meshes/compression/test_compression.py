"""Compressed GLB files: what the bytes say by hand, and what other programs read."""

from __future__ import annotations

import io
import json
import struct

import numpy as np
import pytest
import trimesh
from known_shapes import ball, cube

from fastsam3d.errors import UserError
from fastsam3d.meshes.compression.compressing import compress_glb
from fastsam3d.meshes.formats.glb import encode_glb
from fastsam3d.meshes.gltf import Node, Root, glb_bytes
from fastsam3d.meshes.gltf_reading import read_glb
from fastsam3d.meshes.mesh import Mesh, TexturedMesh
from fastsam3d.meshes.writing import export_mesh

TRIANGLE = Mesh(
    np.array([[1.0, 2.0, 3.0], [3.0, 2.0, 3.0], [1.0, 2.0, 4.0]], dtype=np.float32),
    np.array([[0, 1, 2]]),
    np.array([[0.0, 0.5, 1.0]] * 3, dtype=np.float32),
)


def chunks(data: bytes) -> tuple[dict, bytes]:
    length = struct.unpack("<I", data[12:16])[0]
    return json.loads(data[20 : 20 + length]), data[28 + length :]


def textured(size: int = 32) -> TexturedMesh:
    mesh = ball(2)
    uv = np.stack([mesh.vertices[:, 0] + 0.5, mesh.vertices[:, 2] + 0.5], axis=1).astype(np.float32)
    picture = np.random.default_rng(0).integers(0, 255, (size, size, 3), dtype=np.uint8)
    normals = (mesh.vertices / 0.4).astype(np.float32)
    return TexturedMesh(mesh.vertices, mesh.faces, mesh.vertex_colors, normals, uv, picture)


def test_the_integers_of_a_quantized_triangle_by_hand():
    document, binary = chunks(compress_glb(encode_glb(TRIANGLE), "quantize"))
    assert document["extensionsRequired"] == document["extensionsUsed"] == ["KHR_mesh_quantization"]
    # In the file (y up) the corners are (1, 3, -2), (3, 3, -2), (1, 4, -2): the longest side is 2.
    (node,) = document["nodes"]
    assert node["translation"] == [1.0, 3.0, -2.0] and node["scale"] == [2.0, 2.0, 2.0]
    attributes = document["meshes"][0]["primitives"][0]["attributes"]
    accessor = document["accessors"][attributes["POSITION"]]
    assert accessor["componentType"] == 5123 and accessor["normalized"] is True
    assert accessor["min"] == [0, 0, 0] and accessor["max"] == [65535, 32768, 0]
    view = document["bufferViews"][accessor["bufferView"]]
    assert view["byteStride"] == 8  # three numbers of two bytes, and two bytes of nothing
    values = np.frombuffer(binary, "<u2", 12, view["byteOffset"]).reshape(3, 4)
    assert values.tolist() == [[0, 0, 0, 0], [65535, 0, 0, 0], [0, 32768, 0, 0]]
    normal = document["accessors"][attributes["NORMAL"]]
    view = document["bufferViews"][normal["bufferView"]]
    rows = np.frombuffer(binary, "i1", 12, view["byteOffset"]).reshape(3, 4)
    assert (normal["componentType"], view["byteStride"]) == (5120, 4)
    assert np.abs(rows).sum(axis=1).tolist() == [127] * 3 and np.abs(rows[:, 2]).tolist() == [127] * 3
    indices = document["accessors"][document["meshes"][0]["primitives"][0]["indices"]]
    assert indices["componentType"] == 5123


def test_quantized_files_are_read_back_within_half_a_step():
    for mesh in (ball(3), textured()):
        data = encode_glb(mesh)
        small = compress_glb(data, "quantize")
        assert len(small) < 0.75 * len(data)
        ((_, before),), ((_, after),) = read_glb(data), read_glb(small)
        extent = np.ptp(mesh.vertices, axis=0).max()
        assert np.abs(after.vertices - before.vertices).max() <= 0.5 / 65535 * extent * 1.01 + 1e-7
        assert np.array_equal(after.faces, before.faces)
        if isinstance(before, TexturedMesh):
            assert np.abs(after.uv - before.uv).max() <= 0.51 / 65535
            assert np.abs(after.normals - before.normals).max() <= 0.012
            assert np.array_equal(after.texture, before.texture)
        else:
            assert np.abs(after.vertex_colors - before.vertex_colors).max() < 1e-3


def test_a_node_with_a_place_keeps_it():
    node = Node("thing", cube(), (0.0, 0.0, 0.6, 0.8), (1.0, 2.0, 3.0), (2.0, 2.0, 2.0))
    data = glb_bytes([node], root=Root("scene", (0.6, 0.0, 0.0, 0.8)))
    ((_, before),) = read_glb(data)
    ((name, after),) = read_glb(compress_glb(data, "quantize"))
    assert name == "thing"
    assert np.abs(after.vertices - before.vertices).max() < 1e-4


@pytest.mark.parametrize("with_texture", [False, True])
def test_another_program_reads_draco(with_texture):
    pytest.importorskip("DracoPy", reason="writes and reads Draco's coding")
    mesh = textured() if with_texture else ball(3)
    data = encode_glb(mesh)
    small = compress_glb(data, "draco")
    assert len(small) < 0.6 * len(data)
    loaded = trimesh.load(io.BytesIO(small), file_type="glb", process=False).to_mesh()
    assert len(loaded.faces) == len(mesh.faces)
    z_up = np.stack([loaded.vertices[:, 0], -loaded.vertices[:, 2], loaded.vertices[:, 1]], axis=1)
    distance = np.linalg.norm(z_up[:, None] - mesh.vertices[None], axis=2)
    # 14 bits of a box whose side is 0.8.
    assert distance.min(axis=1).max() < 0.8 / 2**14 and distance.min(axis=0).max() < 0.8 / 2**14
    own = distance.argmin(axis=1)
    if with_texture:
        uv = np.stack([loaded.visual.uv[:, 0], 1 - loaded.visual.uv[:, 1]], axis=1)
        assert np.abs(uv - mesh.uv[own]).max() < 1 / 2**13
    else:
        document = chunks(small)[0]
        attributes = document["meshes"][0]["primitives"][0]["attributes"]
        assert document["accessors"][attributes["COLOR_0"]]["componentType"] == 5123


def test_what_cannot_be_compressed_says_why(tmp_path, monkeypatch):
    data = encode_glb(cube())
    assert compress_glb(data, "none") == data
    with pytest.raises(UserError, match="no compression 'zip'"):
        compress_glb(data, "zip")
    with pytest.raises(UserError, match="needs the glTF extension KHR_mesh_quantization"):
        compress_glb(compress_glb(data, "quantize"), "quantize")
    with pytest.raises(UserError, match="Only GLB files"):
        export_mesh(cube(), tmp_path / "a.obj", "quantize")
    monkeypatch.setitem(__import__("sys").modules, "DracoPy", None)
    with pytest.raises(UserError, match=r"pip install 'fastsam3d\[draco\]'"):
        compress_glb(data, "draco")
    assert not list(tmp_path.iterdir())
