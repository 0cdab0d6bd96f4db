"""Every file that is written can be read again: the same counts, colours, frame and volume, by other programs too."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh
from known_shapes import ball, color_at, cube

from fastsam3d.errors import UserError
from fastsam3d.meshes.gaussians import Gaussian
from fastsam3d.meshes.geometry import srgb_to_linear
from fastsam3d.meshes.gltf import Node, glb_bytes
from fastsam3d.meshes.gltf_reading import read_glb
from fastsam3d.meshes.mesh import Mesh, TexturedMesh
from fastsam3d.meshes.parsing.checks import checked
from fastsam3d.meshes.reading import read_model
from fastsam3d.meshes.simplification import signed_volume
from fastsam3d.meshes.writing import export_gaussians, export_mesh


@pytest.mark.parametrize("suffix", [".glb", ".obj", ".stl"])
def test_meshes_come_back(tmp_path, suffix) -> None:
    mesh = ball(2)
    ((name, read),) = read_model(export_mesh(mesh, tmp_path / f"thing{suffix}"))
    assert name in ("thing", "thing.obj", "thing.stl", "object")
    assert len(read.faces) == len(mesh.faces)
    assert signed_volume(read.vertices, read.faces) == pytest.approx(signed_volume(mesh.vertices, mesh.faces), rel=1e-4)
    assert np.allclose(read.vertices[read.faces], mesh.vertices[mesh.faces], atol=1e-5)
    if suffix != ".stl":
        assert np.allclose(read.vertex_colors[read.faces], mesh.vertex_colors[mesh.faces], atol=3e-3)


@pytest.mark.parametrize("suffix", [".glb", ".obj"])
def test_textures_come_back(tmp_path, suffix) -> None:
    mesh = cube()
    uv = np.random.default_rng(0).random((len(mesh.vertices), 2)).astype(np.float32)
    picture = np.random.default_rng(1).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    normals = (mesh.vertices / np.linalg.norm(mesh.vertices, axis=1, keepdims=True)).astype(np.float32)
    textured = TexturedMesh(mesh.vertices, mesh.faces, mesh.vertex_colors, normals, uv, picture)
    ((_, read),) = read_model(export_mesh(textured, tmp_path / f"thing{suffix}"))
    assert isinstance(read, TexturedMesh)
    assert np.array_equal(read.texture, picture)
    assert np.allclose(read.uv[read.faces], uv[mesh.faces], atol=1e-5)


def test_points_come_back(tmp_path) -> None:
    mesh = ball(3)
    ((_, read),) = read_model(export_mesh(mesh, tmp_path / "thing_points.ply"))
    assert read.is_empty and len(read.vertices) == 50_000
    assert np.abs(read.vertex_colors - color_at(read.vertices)).max() < 0.01


def test_gaussians_are_what_splat_viewers_expect(tmp_path) -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = {"xyz": (40, 3), "features_dc": (40, 1, 3), "scaling": (40, 3), "rotation": (40, 4), "opacity": (40, 1)}
    gaussian = Gaussian(**{name: torch.rand(shape, generator=generator) for name, shape in shapes.items()})
    path = export_gaussians(gaussian, tmp_path / "thing.ply")
    data = path.read_bytes()
    # Read by hand, field by field, as a viewer does.
    header, body = data.split(b"end_header\n", 1)
    lines = header.decode().split("\n")
    names = [line.split()[2] for line in lines if line.startswith("property float")]
    assert lines[:2] == ["ply", "format binary_little_endian 1.0"] and "element vertex 40" in lines
    expected = "x y z nx ny nz f_dc_0 f_dc_1 f_dc_2 opacity scale_0 scale_1 scale_2 rot_0 rot_1 rot_2 rot_3"
    assert " ".join(names) == expected
    table = np.frombuffer(body, "<f4").reshape(40, len(names))
    column = {name: table[:, index] for index, name in enumerate(names)}
    assert np.allclose(np.stack([column[a] for a in "xyz"], 1), gaussian.get_xyz, atol=1e-6)
    scales = np.exp(np.stack([column[f"scale_{k}"] for k in range(3)], 1))
    assert np.allclose(scales, gaussian.get_scaling, rtol=1e-5)
    assert np.allclose(1 / (1 + np.exp(-column["opacity"])), gaussian.get_opacity[:, 0], atol=1e-6)
    turns = np.stack([column[f"rot_{k}"] for k in range(4)], 1)
    assert np.allclose(turns / np.linalg.norm(turns, axis=1, keepdims=True), gaussian.get_rotation, atol=1e-6)
    colors = 0.5 + 0.28209479 * np.stack([column[f"f_dc_{k}"] for k in range(3)], 1)
    assert np.allclose(np.clip(colors, 0, 1), gaussian.colors, atol=1e-6)
    assert len(trimesh.load(path).vertices) == 40
    ((_, read),) = read_model(path)
    assert np.allclose(read.vertices, gaussian.get_xyz) and np.allclose(read.vertex_colors, gaussian.colors, atol=1e-6)


def test_placed_nodes_come_back_in_the_files_frame() -> None:
    half = float(np.sqrt(0.5))
    moved = Node("moved", cube(), (0, half, 0, half), (1, 2, 3), (0.5, 1.0, 2.0))
    data = glb_bytes([Node("plain", ball(1)), moved])
    loaded = trimesh.load(io.BytesIO(data), file_type="glb", process=False)
    for name, mesh in read_glb(data):
        matrix, geometry = loaded.graph[name]
        expected = trimesh.transform_points(loaded.geometry[geometry].vertices, matrix)
        y_up = np.stack([mesh.vertices[:, 0], mesh.vertices[:, 2], -mesh.vertices[:, 1]], axis=1)
        assert np.allclose(y_up, expected, atol=1e-5)


def test_files_of_another_program() -> None:
    shape = trimesh.creation.box(extents=(1, 2, 3))
    shape.visual = trimesh.visual.ColorVisuals(
        shape, vertex_colors=np.tile([255, 128, 0, 255], (8, 1)).astype(np.uint8)
    )
    data = trimesh.Scene(shape).export(file_type="glb")
    ((_, read),) = read_glb(data)
    assert np.allclose(np.ptp(read.vertices, axis=0), [1, 3, 2])
    # glTF's colours are linear light, whatever the program meant them to be.
    assert srgb_to_linear(read.vertex_colors[0]) == pytest.approx([1, 128 / 255, 0], abs=1e-3)


def test_unreadable_files_are_named(tmp_path) -> None:
    good = export_mesh(cube(), tmp_path / "good.glb").read_bytes()
    cases = {
        "cut.glb": (good[:-40], "cannot be read: it ends too early"),
        "text.glb": (b"hello, this is no model", "no GLB file"),
        "text.ply": (b"hello", "cannot be read"),
        "thing.fbx": (b"", "cannot be shown; give one of .glb"),
    }
    for name, (data, expected) in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UserError, match=expected):
            read_model(tmp_path / name)
    with pytest.raises(UserError, match="there is no file"):
        read_model(tmp_path / "missing.glb")


def test_vertices_without_a_place_go_with_all_that_belongs_to_them() -> None:
    vertices = np.array([[np.nan, 0, 0], [0, 0, 0], [1, 0, 0], [0, 1, 0]], dtype=np.float32)
    rows = np.arange(4, dtype=np.float32)[:, None]
    mesh = TexturedMesh(
        vertices,
        np.array([[0, 1, 2], [1, 2, 3]]),
        np.tile(rows, 3),
        np.tile(rows, 3),
        np.tile(rows, 2),
        np.zeros((2, 2, 3), dtype=np.uint8),
        tangents=np.tile(rows, 4),
    )
    ((_, kept),) = checked([("m", mesh)], "the test")
    assert kept.faces.tolist() == [[0, 1, 2]]
    assert isinstance(kept, TexturedMesh) and kept.tangents is not None
    for values in (kept.vertex_colors, kept.normals, kept.uv, kept.tangents):
        assert values[:, 0].tolist() == [1, 2, 3]


def test_points_are_written_as_points() -> None:
    mesh = replace(ball(1), faces=np.zeros((0, 3), dtype=np.int64))
    ((_, read),) = read_glb(glb_bytes([Node("cloud", mesh)]))
    assert read.is_empty and np.allclose(read.vertices, mesh.vertices, atol=1e-6)
    assert isinstance(read, Mesh)
