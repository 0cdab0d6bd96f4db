"""Normal maps: a plane with a known wave, by hand, and as a program reads it from the file."""

from __future__ import annotations

import io
import json
import struct

import numpy as np
import pytest
from known_shapes import ball
from PIL import Image

from fastsam3d.cli.main import main
from fastsam3d.errors import UserError
from fastsam3d.meshes.finishing.baking import Atlas
from fastsam3d.meshes.finishing.finishing import finish
from fastsam3d.meshes.finishing.normal_maps import vertex_tangents, with_normal_map
from fastsam3d.meshes.formats.glb import encode_glb
from fastsam3d.meshes.geometry import sample_surface
from fastsam3d.meshes.mesh import Mesh
from fastsam3d.meshes.turntable import levelled, mapped_normals

HEIGHT, WAVES = 0.01, 5
SLOPE = HEIGHT * 2 * np.pi * WAVES
"""Steepest slope of the wave `HEIGHT * sin(2 pi WAVES x)`: 0.314."""


def wave(count: int = 161) -> Mesh:
    x, y = np.meshgrid(np.linspace(-0.5, 0.5, count), np.linspace(-0.5, 0.5, count), indexing="ij")
    vertices = np.stack([x, y, HEIGHT * np.sin(2 * np.pi * WAVES * x)], axis=-1).reshape(-1, 3).astype(np.float32)
    index = np.arange(count * count).reshape(count, count)
    a, b, c, d = index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]
    faces = np.concatenate([np.stack(each, axis=-1).reshape(-1, 3) for each in ((a, b, c), (a, c, d))])
    return Mesh(vertices, faces, np.full_like(vertices, 0.5))


def plane() -> Mesh:
    vertices = np.array([[-0.5, -0.5, 0], [0.5, -0.5, 0], [0.5, 0.5, 0], [-0.5, 0.5, 0]], dtype=np.float32)
    return Mesh(vertices, np.array([[0, 1, 2], [0, 2, 3]]), np.full_like(vertices, 0.5))


@pytest.mark.parametrize("mirrored", [False, True])
def test_the_pixels_of_a_wave_by_hand(mirrored):
    flat, size = plane(), 128
    # u along x, v against y, as the picture lies on the plane when seen from above; mirrored: u against x.
    uv = np.stack([flat.vertices[:, 0] + 0.5, 0.5 - flat.vertices[:, 1]], axis=1).astype(np.float32)
    if mirrored:
        uv[:, 0] = 1 - uv[:, 0]
    atlas = Atlas(flat, np.arange(4), flat.faces, uv, size)
    bare = atlas.textured(np.zeros((size, size, 3), dtype=np.uint8))
    mapped = with_normal_map(bare, atlas, atlas.texels(), wave())
    assert mapped.tangents is not None and mapped.normal_map is not None
    side = -1 if mirrored else 1
    # The tangent points where u grows. The bitangent points up the picture, along y: so w is -1 if u is mirrored.
    assert np.allclose(mapped.tangents, [[side, 0, 0, side]] * 4, atol=1e-6)
    column = np.arange(size)
    x = (column + 0.5) / size - 0.5
    normal = np.stack([-SLOPE * np.cos(2 * np.pi * WAVES * x), 0 * x, 1 + 0 * x], axis=1)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    expected = 127.5 * (normal + 1)
    if mirrored:  # the other way round in the picture, and along the mirrored tangent
        expected = 255 - expected[::-1] * [1, -1, -1] - [0, 255, 255]
    # The nearest point of the wave lies a little beside the plane's point, by up to 0.002: 2.2 steps of the picture.
    assert np.abs(mapped.normal_map.astype(float) - expected[None]).max() < 3
    assert np.abs(expected[:, 0] - 127.5).max() == pytest.approx(127.5 * SLOPE / np.hypot(1, SLOPE), rel=0.02)


def test_every_texel_of_a_simplified_wave_has_the_normal_of_the_full_one():
    pytest.importorskip("xatlas")
    pytest.importorskip("fast_simplification")
    finished = finish(wave(), faces=60, texture=256, normal_map=True).mesh
    normals, places = drawn(finished)
    x = places[:, 0]
    inner = (np.abs(places[:, :2]) < 0.45).all(axis=1)
    truth = np.stack([-SLOPE * np.cos(2 * np.pi * WAVES * x), 0 * x, 1 + 0 * x], axis=1)
    truth /= np.linalg.norm(truth, axis=1, keepdims=True)
    error = np.degrees(np.arccos(np.clip((normals * truth).sum(axis=1), -1, 1)))[inner]
    bare = np.degrees(np.arccos(np.clip((smooth(finished) * truth).sum(axis=1), -1, 1)))[inner]
    assert np.median(error) < 1.0 and np.quantile(error, 0.95) < 4
    assert np.median(bare) > 4 * np.median(error)


def test_the_file_holds_the_map_and_its_frame_as_glTF_wants_them():
    pytest.importorskip("xatlas")
    finished = finish(ball(3), faces=None, texture=64, normal_map=True).mesh
    data = encode_glb(finished)
    length = struct.unpack("<I", data[12:16])[0]
    document, binary = json.loads(data[20 : 20 + length]), data[28 + length :]
    (material,) = document["materials"]
    image = document["images"][document["textures"][material["normalTexture"]["index"]]["source"]]
    view = document["bufferViews"][image["bufferView"]]
    pixels = np.asarray(Image.open(io.BytesIO(binary[view["byteOffset"] :][: view["byteLength"]])))
    assert np.array_equal(pixels, finished.normal_map)
    accessor = document["accessors"][document["meshes"][0]["primitives"][0]["attributes"]["TANGENT"]]
    view = document["bufferViews"][accessor["bufferView"]]
    tangents = np.frombuffer(binary, "<f4", 4 * accessor["count"], view["byteOffset"]).reshape(-1, 4)
    assert accessor["type"] == "VEC4" and np.allclose(np.linalg.norm(tangents[:, :3], axis=1), 1, atol=1e-5)
    assert set(tangents[:, 3]) <= {-1.0, 1.0}
    # y up: (x, y, z) of ours is (x, z, -y) there.
    assert np.allclose(tangents[:, :3], finished.tangents[:, [0, 2, 1]] * [1, 1, -1], atol=1e-6)


def test_tangents_are_across_the_normals_even_where_a_face_has_no_place_in_the_picture():
    flat = plane()
    normals = np.tile(np.array([0, 0, 1], dtype=np.float32), (4, 1))
    tangents = vertex_tangents(flat.vertices, normals, np.zeros((4, 2), dtype=np.float32), flat.faces)
    assert np.allclose((tangents[:, :3] * normals).sum(axis=1), 0) and np.isfinite(tangents).all()
    assert np.allclose(np.linalg.norm(tangents[:, :3], axis=1), 1)


def test_the_frame_turns_with_the_mesh():
    pytest.importorskip("xatlas")
    finished = finish(wave(41), faces=None, texture=64, normal_map=True).mesh
    (turned,) = levelled([finished], np.array([0.0, 1.0, 0.0]))  # y becomes z: (x, y, z) to (x, -z, y)
    before, _ = drawn(finished)
    after, _ = drawn(turned)
    assert np.allclose(after, before[:, [0, 2, 1]] * [1, -1, 1], atol=1e-5)


def test_a_map_without_a_texture_is_refused():
    with pytest.raises(UserError, match="normal map needs a texture"):
        finish(ball(1), texture=None, normal_map=True)


def drawn(mesh):
    """(normals as a program draws them, places) of points that are spread over the surface."""
    chosen, weights = sample_surface(mesh.vertices, mesh.faces, 4000, np.random.default_rng(0))
    corners = mesh.faces[chosen]
    return mapped_normals(mesh, corners, weights), (mesh.vertices[corners] * weights[..., None]).sum(axis=1)


def smooth(mesh):
    """Normals of the same points without the map."""
    chosen, weights = sample_surface(mesh.vertices, mesh.faces, 4000, np.random.default_rng(0))
    found = (mesh.normals[mesh.faces[chosen]] * weights[..., None]).sum(axis=1)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def test_the_command_writes_a_map_and_a_small_file(tmp_path, capsys):
    pytest.importorskip("xatlas")
    pytest.importorskip("fast_simplification")
    (tmp_path / "wave.glb").write_bytes(encode_glb(wave(41)))
    words = ["finish", str(tmp_path / "wave.glb"), "--faces", "300", "--texture", "64", "--normal-map"]
    assert main([*words, "--compress", "quantize", "--quiet", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert "normal map" in report["seconds"]
    data = (tmp_path / "wave_finished.glb").read_bytes()
    document = json.loads(data[20 : 20 + struct.unpack("<I", data[12:16])[0]])
    assert document["extensionsRequired"] == ["KHR_mesh_quantization"] and "normalTexture" in document["materials"][0]
    assert main([*words, "--compress", "zip"]) == 2
    assert "no compression 'zip'" in capsys.readouterr().err
    assert main([*words, "--compress", "draco", "--output", str(tmp_path / "a.obj")]) == 2
    assert main(["finish", str(tmp_path / "wave.glb"), "--texture", "0", "--normal-map"]) == 2
    assert "normal map needs a texture" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"wave.glb", "wave_finished.glb"}
