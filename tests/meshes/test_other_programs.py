"""Splats and meshes as other programs write them. The expected numbers are written here by hand."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastsam3d.errors import UserError
from fastsam3d.meshes.mesh import TexturedMesh
from fastsam3d.meshes.reading import read_model

PLACES = np.array([[0.0, 0.25, 0.5], [1, 2, 3], [-1, -2, -3]])
HARMONICS = np.array([[0.0, 1.0, -1.0]] * 3)
COLOUR = [0.5, 0.5 + 0.28209479, 0.5 - 0.28209479]
NAMES = ("x", "y", "z", "f_dc_0", "f_dc_1", "f_dc_2")


def splat(order: str, kind: str, before: str = "", after: str = "", newline: str = "\n", tail: bytes = b"") -> bytes:
    """A 3DGS PLY file; `order` is a format's name without "binary_"."""
    rows = np.hstack([PLACES, HARMONICS])
    fields = "".join(f"property {kind} {name}\n" for name in NAMES)
    format_name = order if order == "ascii" else f"binary_{order}"
    head = f"ply\nformat {format_name} 1.0\n{before}element vertex 3\n{fields}{after}end_header\n"
    if order == "ascii":
        body = "".join(" ".join(f"{value:.6f}" for value in row) + newline for row in rows).encode()
    else:
        width = "f8" if kind in ("double", "float64") else "f4"
        body = rows.astype((">" if "big" in order else "<") + width).tobytes()
    return head.replace("\n", newline).encode() + body + tail


@pytest.mark.parametrize(
    "data",
    [
        splat("little_endian", "float"),
        splat("little_endian", "float32"),
        splat("little_endian", "double"),
        splat("little_endian", "float", newline="\r\n"),
        splat("big_endian", "float"),
        splat("big_endian", "float64"),
        splat("ascii", "float"),
        splat("ascii", "double", newline="\r\n"),
        splat(
            "little_endian",
            "float",
            after="element extrinsic 4\nproperty float extrinsic\nelement size 2\nproperty uint size\n",
            tail=b"\0" * 24,
        ),
        splat("little_endian", "float", after="comment end\nobj_info made elsewhere\n"),
    ],
    ids=["little", "float32", "double", "crlf", "big", "big double", "ascii", "ascii crlf", "extra", "comments"],
)
def test_splats_of_any_kind_are_read(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.ply").write_bytes(data)
    ((_, mesh),) = read_model(tmp_path / "a.ply")
    assert np.allclose(mesh.vertices, PLACES) and mesh.is_empty
    assert np.allclose(mesh.vertex_colors, [COLOUR] * 3, atol=1e-6)


def test_an_element_before_the_vertices_is_passed_over(tmp_path: Path) -> None:
    before = "element camera 2\nproperty uchar id\nproperty double f\n"
    data = splat("little_endian", "float", before=before)
    head, body = data.split(b"end_header\n")
    (tmp_path / "a.ply").write_bytes(head + b"end_header\n" + b"\7" * 18 + body)
    assert np.allclose(read_model(tmp_path / "a.ply")[0][1].vertices, PLACES)


def test_rows_without_a_place_are_left_out_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = splat("ascii", "float").replace(b"1.000000 2.000000 3.000000", b"nan 2 inf")
    (tmp_path / "a.ply").write_bytes(data)
    with caplog.at_level(logging.WARNING, "fastsam3d"):
        ((_, mesh),) = read_model(tmp_path / "a.ply")
    assert np.allclose(mesh.vertices, PLACES[[0, 2]])
    assert "1 of 3 points have no place" in caplog.text


def test_faces_at_a_vertex_without_a_place_go_with_it(tmp_path: Path) -> None:
    (tmp_path / "a.obj").write_text("v 0 0 0\nv nan 0 0\nv 0 1 0\nv 1 1 0\nv 1 0 0\nf 1 2 3\nf 1 3 4 5\n")
    ((_, mesh),) = read_model(tmp_path / "a.obj")
    assert len(mesh.vertices) == 4 and len(mesh.faces) == 2


def test_polygons_of_different_sizes_and_16_bit_colours(tmp_path: Path) -> None:
    head = (
        "ply\nformat binary_big_endian 1.0\nelement vertex 5\nproperty float x\nproperty float y\nproperty float z\n"
        "property ushort red\nproperty ushort green\nproperty ushort blue\n"
        "element face 2\nproperty list uchar int vertex_indices\nproperty uchar flag\nend_header\n"
    )
    vertices = np.zeros(5, dtype=[("p", ">f4", 3), ("c", ">u2", 3)])
    vertices["p"] = np.arange(15).reshape(5, 3)
    vertices["c"] = [65535, 0, 32768]
    faces = b"\3" + np.array([0, 1, 2], ">i4").tobytes() + b"\1"
    faces += b"\4" + np.array([1, 2, 3, 4], ">i4").tobytes() + b"\0"
    (tmp_path / "a.ply").write_bytes(head.encode() + vertices.tobytes() + faces)
    ((_, mesh),) = read_model(tmp_path / "a.ply")
    assert mesh.faces.tolist() == [[0, 1, 2], [1, 2, 3], [1, 3, 4]]
    assert np.allclose(mesh.vertex_colors, [1, 0, 0.50001], atol=1e-4)


def test_compressed_splats_are_named(tmp_path: Path) -> None:
    fields = "".join(f"property uint {name}\n" for name in ("packed_position", "packed_rotation"))
    head = f"ply\nformat binary_little_endian 1.0\nelement vertex 1\n{fields}end_header\n"
    (tmp_path / "a.ply").write_bytes(head.encode() + b"\0" * 8)
    with pytest.raises(UserError, match="compressed"):
        read_model(tmp_path / "a.ply")


@pytest.mark.parametrize("face", ["f 1/1/1 2/2/1 3/3/1", "f 1/1 2/2 3/3", "f -3/-3/-1 -2/-2/-1 -1/-1/-1"])
def test_an_obj_with_normals_and_names_with_blanks(tmp_path: Path, face: str) -> None:
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    Image.fromarray(pixels).save(tmp_path / "my picture.png")
    (tmp_path / "my materials.mtl").write_text("newmtl red paint\nKd 1 1 1\nmap_Kd -s 1 1 1 my picture.png\n")
    (tmp_path / "a.obj").write_text(
        f"mtllib my materials.mtl\nv 1 2 3\nv 4 5 6\nv 7 8 10\nvt 0 0\nvt 1 0\nvt 0.25 0.75\nvn 0 0 1\n"
        f"usemtl red paint\r\n{face}\n"
    )
    ((_, mesh),) = read_model(tmp_path / "a.obj")
    assert isinstance(mesh, TexturedMesh) and np.array_equal(mesh.texture, pixels)
    corners = mesh.faces[0]
    # y up becomes z up: (x, -z, y); OBJ counts texture rows from the bottom.
    assert np.allclose(mesh.vertices[corners], [[1, -3, 2], [4, -6, 5], [7, -10, 8]])
    assert np.allclose(mesh.uv[corners], [[0, 1], [1, 1], [0.25, 0.25]])


def test_an_obj_with_normals_alone_keeps_its_colours(tmp_path: Path) -> None:
    (tmp_path / "a.obj").write_text("v 0 0 0 1 0 0\nv 1 0 0 0 1 0\nv 0 1 0 0 0 1\nvn 0 0 1\nf 1//1 2//1 3//1\n")
    ((_, mesh),) = read_model(tmp_path / "a.obj")
    assert np.allclose(mesh.vertex_colors[mesh.faces[0]], np.eye(3))


def test_a_texture_that_is_not_there_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.mtl").write_text("newmtl m\nmap_Kd C:\\textures\\gone.png\n")
    (tmp_path / "a.obj").write_text("mtllib a.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nusemtl m\nf 1/1 2/1 3/1\n")
    with caplog.at_level(logging.WARNING, "fastsam3d"):
        ((_, mesh),) = read_model(tmp_path / "a.obj")
    assert not isinstance(mesh, TexturedMesh) and "gone.png" in caplog.text


def test_an_ascii_stl(tmp_path: Path) -> None:
    (tmp_path / "a.stl").write_text(
        "solid thing\nfacet normal 0 0 1\nouter loop\nvertex 0 0 0\nvertex 1e0 0 0\nvertex 0 2 0\nendloop\nendfacet\n"
    )
    ((_, mesh),) = read_model(tmp_path / "a.stl")
    assert mesh.vertices.tolist() == [[0, 0, 0], [1, 0, 0], [0, 2, 0]] and mesh.faces.tolist() == [[0, 1, 2]]
