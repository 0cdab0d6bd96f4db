"""Files: round trips through trimesh, axes, colours, determinism, and places that cannot be written."""

from __future__ import annotations

import io
import json
import struct

import numpy as np
import pytest
import trimesh

from fastsam3d.basics.files import write_atomically
from fastsam3d.basics.options import prepare_directory
from fastsam3d.errors import UserError
from fastsam3d.meshes.formats.glb import encode_glb
from fastsam3d.meshes.formats.obj import encode_obj
from fastsam3d.meshes.formats.ply import encode_points
from fastsam3d.meshes.formats.stl import encode_stl
from fastsam3d.meshes.geometry import linear_to_srgb, sample_surface, srgb_to_linear, vertex_normals
from fastsam3d.meshes.mesh import Mesh
from fastsam3d.meshes.writing import export_mesh


@pytest.fixture
def box() -> Mesh:
    """1 x 2 x 4 around the origin, longest along z, blue at the top and mid-grey below."""
    shape = trimesh.creation.box(extents=(1, 2, 4))
    colors = np.where(shape.vertices[:, 2:] > 0, [0.0, 0.0, 1.0], [0.5, 0.5, 0.5])
    return Mesh(shape.vertices.astype(np.float32), shape.faces.astype(np.int64), colors.astype(np.float32))


def gltf_document(data: bytes) -> dict:
    magic, version, length, chunk, kind = struct.unpack("<4sIII4s", data[:20])
    assert (magic, version, length, kind) == (b"glTF", 2, len(data), b"JSON")
    return json.loads(data[20 : 20 + chunk])


def vertex_attribute(data: bytes, name: str) -> np.ndarray:
    document = gltf_document(data)
    accessor = document["accessors"][document["meshes"][0]["primitives"][0]["attributes"][name]]
    view = document["bufferViews"][accessor["bufferView"]]
    start = len(data) - document["buffers"][0]["byteLength"] + view["byteOffset"]
    return np.frombuffer(data[start : start + view["byteLength"]], dtype="<f4").reshape(-1, 3)


def test_glb_is_y_up_and_keeps_the_shape(box: Mesh) -> None:
    loaded = trimesh.load(io.BytesIO(encode_glb(box, "thing")), file_type="glb", process=False)
    assert np.allclose(loaded.extents, [1, 4, 2])
    mesh = loaded.to_mesh()
    assert mesh.is_watertight
    assert mesh.volume == pytest.approx(8.0)
    # Up in the object (z) is up in the file (y), and the front (-y) looks at the viewer (+z).
    assert np.allclose(mesh.vertices[:, 1], box.vertices[:, 2])
    assert np.allclose(mesh.vertices[:, 2], -box.vertices[:, 1])


def test_glb_colours_are_linear_and_the_material_is_white_and_matt(box: Mesh) -> None:
    data = encode_glb(box)
    material = gltf_document(data)["materials"][0]["pbrMetallicRoughness"]
    assert material == {"baseColorFactor": [1, 1, 1, 1], "metallicFactor": 0, "roughnessFactor": 1}
    colors = vertex_attribute(data, "COLOR_0")
    # sRGB 0.5 is linear 0.214.
    assert np.allclose(colors[box.vertices[:, 2] < 0], 0.2140, atol=0.004)
    assert np.allclose(colors[box.vertices[:, 2] > 0], [0, 0, 1], atol=0.004)


def test_glb_normals_are_unit_and_point_outward(box: Mesh) -> None:
    data = encode_glb(box)
    normals = vertex_attribute(data, "NORMAL")
    assert np.allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-5)
    corners = box.vertices[:, [0, 2, 1]] * [1, 1, -1]
    assert ((normals * corners).sum(axis=1) > 0).all()


@pytest.mark.parametrize("encode", [encode_glb, encode_points, encode_obj, encode_stl])
def test_same_mesh_same_bytes(box: Mesh, encode) -> None:
    state = np.random.get_state()[1].copy()
    assert encode(box, "a") == encode(box, "a")
    assert np.array_equal(np.random.get_state()[1], state)


def test_ply_holds_points_of_the_surface_and_says_so(box: Mesh) -> None:
    data = encode_points(box, count=2000)
    assert b"not Gaussians" in data.split(b"end_header")[0]
    cloud = trimesh.load(io.BytesIO(data), file_type="ply")
    points = np.asarray(cloud.vertices)
    assert len(points) == 2000
    half = np.array([0.5, 1.0, 2.0])
    assert np.allclose(np.max(np.abs(points) / half, axis=1), 1, atol=1e-5)
    top = points[:, 2] > 1.999
    assert np.abs(np.asarray(cloud.colors)[top][:, :3] - [0, 0, 255]).max() <= 1
    # The top is 2 of 28 units of area.
    assert top.mean() == pytest.approx(2 / 28, abs=0.01)


def test_obj_and_stl_round_trip(box: Mesh) -> None:
    obj = trimesh.load(io.BytesIO(encode_obj(box)), file_type="obj", process=False)
    assert np.allclose(obj.extents, [1, 4, 2], atol=1e-5)
    assert len(obj.faces) == 12
    assert np.allclose(obj.visual.vertex_colors[:, 2] / 255, box.vertex_colors[:, 2], atol=0.01)
    stl = trimesh.load(io.BytesIO(encode_stl(box)), file_type="stl")
    assert np.allclose(stl.extents, [1, 2, 4])
    assert stl.volume == pytest.approx(8.0)


def test_vertex_normals_weigh_faces_by_area_and_survive_loose_vertices() -> None:
    vertices = np.array([[0, 0, 0], [2, 0, 0], [0, 2, 0], [0, 0, 1], [9, 9, 9]], dtype=np.float32)
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    normals = vertex_normals(vertices, faces)
    # Face normals (0, 0, 1) with area 2 and (1, 0, 0) with area 1.
    assert np.allclose(normals[0], np.array([1, 0, 2]) / np.sqrt(5), atol=1e-6)
    assert normals[4].tolist() == [0, 0, 1]


def test_samples_lie_in_faces_in_proportion_to_area() -> None:
    vertices = np.array([[0, 0, 0], [3, 0, 0], [0, 2, 0], [0, 0, 1]], dtype=np.float64)
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    chosen, weights = sample_surface(vertices, faces, 4000, np.random.default_rng(1))
    assert (weights >= 0).all()
    assert np.allclose(weights.sum(axis=1), 1)
    assert (chosen == 0).mean() == pytest.approx(0.75, abs=0.001)
    # Uniform points of a triangle have its centroid as their mean.
    assert np.allclose(weights.mean(axis=0), 1 / 3, atol=0.02)


def test_srgb_curve_by_hand() -> None:
    assert srgb_to_linear(np.array([0.0, 0.5, 1.0])) == pytest.approx([0.0, 0.21404, 1.0], abs=1e-5)
    values = np.linspace(0, 1, 50)
    assert np.allclose(linear_to_srgb(srgb_to_linear(values)), values)


def test_a_path_in_the_home_folder(box: Mesh, tmp_path, monkeypatch) -> None:
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    here.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    assert export_mesh(box, "~/box.stl") == home / "box.stl"
    assert prepare_directory("~/new", "bench") == home / "new"
    assert (home / "box.stl").is_file() and (home / "new").is_dir() and not list(here.iterdir())


def test_errors_of_export(box: Mesh, tmp_path) -> None:
    with pytest.raises(UserError, match="no known suffix"):
        export_mesh(box, tmp_path / "thing.fbx")
    with pytest.raises(UserError, match="no faces"):
        export_mesh(Mesh(box.vertices, box.faces[:0], box.vertex_colors), tmp_path / "thing.glb")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot be written"):
        export_mesh(box, tmp_path / "file" / "thing.glb")


def test_files_replace_as_a_whole_and_leave_nothing_behind(tmp_path) -> None:
    target = tmp_path / "deep" / "thing.bin"
    write_atomically(target, b"one")
    write_atomically(target, b"two")
    assert target.read_bytes() == b"two"
    assert [p.name for p in target.parent.iterdir()] == ["thing.bin"]
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError):
        write_atomically(tmp_path / "folder", b"three")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["deep", "folder"]
