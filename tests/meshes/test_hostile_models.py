"""Small files of 3D objects that ask for much: refused in a line, quickly and within little memory."""

from __future__ import annotations

import io
import json
import os
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from bounded_reading import assert_refused, outcomes
from PIL import Image

from fastsam3d.errors import UserError
from fastsam3d.meshes.reading import read_model, read_up

READER = "fastsam3d.meshes.reading.read_model"
TRIANGLE = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], "<f4").tobytes()
linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and limits of memory")


def glb(binary: bytes = TRIANGLE, **changes: object) -> bytes:
    """A GLB file of one triangle with parts of its document exchanged."""
    document = {
        "asset": {"version": "2.0"},
        "buffers": [{"byteLength": len(binary)}],
        "bufferViews": [{"buffer": 0, "byteLength": len(binary)}],
        "accessors": [{"bufferView": 0, "componentType": 5126, "count": 3, "type": "VEC3"}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}}]}],
        "nodes": [{"mesh": 0}],
        "scenes": [{"nodes": [0]}],
    }
    text = json.dumps(document | changes).encode()
    text += b" " * (-len(text) % 4)
    binary += b"\0" * (-len(binary) % 4)
    parts = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(binary), b"BIN\0") + binary
    return b"glTF" + struct.pack("<II", 2, 12 + len(parts)) + parts


def accessor(**changes: object) -> list[dict]:
    return [{"bufferView": 0, "componentType": 5126, "count": 3, "type": "VEC3"} | changes]


def big_png(width: int, height: int) -> bytes:
    """A picture of one colour, small in its file."""
    data = io.BytesIO()
    Image.new("1", (width, height)).save(data, "PNG")
    return data.getvalue()


def textured(picture: bytes, copies: int = 1) -> bytes:
    uv = np.zeros((3, 2), "<f4").tobytes()
    binary = TRIANGLE + uv + picture
    views = [(0, 36), (36, 24), (60, len(picture))]
    return glb(
        binary,
        bufferViews=[{"buffer": 0, "byteOffset": start, "byteLength": length} for start, length in views],
        accessors=[*accessor(), {"bufferView": 1, "componentType": 5126, "count": 3, "type": "VEC2"}],
        meshes=[{"primitives": [{"attributes": {"POSITION": 0, "TEXCOORD_0": 1}, "material": 0}]}],
        materials=[{"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}, "baseColorFactor": [0.5, 1, 1, 1]}}],
        textures=[{"source": 0}],
        images=[{"bufferView": 2, "mimeType": "image/png"}],
        nodes=[{"mesh": 0}] * copies,
        scenes=[{"nodes": list(range(copies))}],
    )


def indexed(indices: list[int]) -> bytes:
    data = np.array(indices, "<u4").tobytes()
    return glb(
        TRIANGLE + data,
        bufferViews=[{"buffer": 0, "byteLength": 36}, {"buffer": 0, "byteOffset": 36, "byteLength": len(data)}],
        accessors=[*accessor(), {"bufferView": 1, "componentType": 5125, "count": len(indices), "type": "SCALAR"}],
        meshes=[{"primitives": [{"attributes": {"POSITION": 0}, "indices": 1}]}],
    )


HOSTILE = {
    "node_tree.glb": (
        glb(nodes=[*({"children": [n + 1] * 2} for n in range(40)), {"mesh": 0}]),
        "more than",
    ),
    "node_circle.glb": (glb(nodes=[{"children": [0]}]), "nested too deeply"),
    "primitives.glb": (glb(meshes=[{"primitives": [{"attributes": {"POSITION": 0}}] * 200_000}]), "primitives"),
    "stride_zero.glb": (
        glb(bufferViews=[{"buffer": 0, "byteLength": 36, "byteStride": 0}], accessors=accessor(count=10**9)),
        "stride",
    ),
    "count.glb": (glb(accessors=accessor(count=10**9)), "beyond its data"),
    "count_negative.glb": (glb(accessors=accessor(count=-1)), "whole number"),
    "count_text.glb": (glb(accessors=accessor(count="3")), "whole number"),
    "offset.glb": (glb(accessors=accessor(byteOffset=2**62)), "whole number"),
    "view.glb": (glb(bufferViews=[{"buffer": 0, "byteLength": 10**9}]), "beyond its data"),
    "index.glb": (indexed([0, 1, 3]), "not there"),
    "mesh_index.glb": (glb(nodes=[{"mesh": 7}]), "not there"),
    "mesh_index_negative.glb": (glb(nodes=[{"mesh": -1}]), "not there"),
    "texture_178.glb": (textured(big_png(13_350, 13_300)), "too large"),
    "texture_eps.glb": (textured(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), "cannot identify"),
    "json_deep.glb": (
        b"glTF" + struct.pack("<II", 2, 200_020) + struct.pack("<I4s", 200_000, b"JSON") + b"[" * 200_000,
        "cannot be read",
    ),
    "count.ply": (
        b"ply\nformat binary_little_endian 1.0\nelement vertex 999999999\nproperty float x\nend_header\n",
        "early",
    ),
    "count_ascii.ply": (b"ply\nformat ascii 1.0\nelement vertex 999999999\nproperty float x\nend_header\n1", "early"),
    "count_text.ply": (b"ply\nformat ascii 1.0\nelement vertex \xb2\nproperty float x\nend_header\n1", "header"),
    "list.ply": (
        b"ply\nformat binary_little_endian 1.0\nelement face 1\nproperty list uint float vertex_index\nend_header\n"
        + b"\xff\xff\xff\x7f" * 4,
        "impossible",
    ),
    "no_header_end.ply": (b"ply\n" + b"comment x\n" * 100_000, "no PLY file"),
    "face.ply": (
        b"ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nproperty float y\nproperty float z\n"
        b"element face 1\nproperty list uchar int vertex_index\nend_header\n0 0 0 1 0 0 0 1 0 3 0 1 9\n",
        "not there",
    ),
    "face.obj": (b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 4\n", "not there"),
    "face_zero.obj": (b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 0 -9 1\n", "not there"),
    "text.obj": (b"v a b c\n", "cannot be read"),
    "count.stl": (b"\0" * 80 + b"\xff\xff\xff\xff", "early"),
    "count_text.stl": (b"solid x\nvertex 1 2 nothing\n" * 9, "text stands"),
}


@linux
def test_they_are_refused_in_time_and_within_memory(tmp_path: Path) -> None:
    files = {}
    for name, (data, words) in HOSTILE.items():
        (tmp_path / name).write_bytes(data)
        files[name] = (tmp_path / name, words)
    assert_refused(READER, files)


@linux
def test_pipes_and_devices_are_no_models(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.glb")
    (tmp_path / "zero.ply").symlink_to("/dev/zero")
    (tmp_path / "folder.obj").mkdir()
    words = {"pipe.glb": "pipe or a device", "zero.ply": "pipe or a device", "folder.obj": "a folder"}
    assert_refused(READER, {name: (tmp_path / name, text) for name, text in words.items()})


@linux
def test_a_material_cannot_name_pipes_or_files_elsewhere(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    os.mkfifo(folder / "pipe.mtl")
    (tmp_path / "outside.mtl").write_text("newmtl a\nmap_Kd picture.png\n")
    for name, library in (("pipe", "pipe.mtl"), ("up", "../outside.mtl"), ("device", "/dev/zero")):
        (folder / f"{name}.obj").write_text(f"mtllib {library}\nv 0 0 0\nv 1 0 0\nv 0 1 0\nusemtl a\nf 1 2 3\n")
    found = outcomes(READER, sorted(folder.glob("*.obj")))
    assert all(outcome.kind == "read" and outcome.seconds < 5 for outcome in found.values()), found


def test_a_texture_shared_by_many_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fastsam3d.meshes.gltf_reading as reading

    calls = []
    original = reading.texture_pixels
    monkeypatch.setattr(reading, "texture_pixels", lambda data: calls.append(1) or original(data))
    (tmp_path / "a.glb").write_bytes(textured(big_png(8, 8), copies=5))
    assert len(read_model(tmp_path / "a.glb")) == 5
    assert len(calls) == 1


UPS = [[], {"extras": []}, {"extras": {"up": [0, 10**400, 0]}}, {"extras": {"up": ["y"] * 3}}]


@pytest.mark.parametrize("asset", UPS)
def test_strange_directions_of_up_are_none(tmp_path: Path, asset: object) -> None:
    (tmp_path / "a.glb").write_bytes(glb(asset=asset))
    assert len(read_model(tmp_path / "a.glb")) == 1
    assert read_up(tmp_path / "a.glb") is None


def test_a_home_folder_that_is_nobodys_is_told() -> None:
    with pytest.raises(UserError, match="unknown user"):
        read_model("~nobody_of_that_name/a.glb")
