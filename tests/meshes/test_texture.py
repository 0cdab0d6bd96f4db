"""Baked textures: every point of the surface keeps its colour, in the file too."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest
import trimesh
from known_shapes import ball, color_at, cube

from fastsam3d.errors import UserError
from fastsam3d.meshes.formats.glb import encode_glb
from fastsam3d.meshes.geometry import sample_surface
from fastsam3d.meshes.texture import bake_texture, spread
from fastsam3d.meshes.turntable import sample_texture
from fastsam3d.meshes.writing import Preparation, export_mesh


def test_every_point_of_the_surface_has_its_colour_in_the_picture() -> None:
    pytest.importorskip("xatlas")
    mesh = cube()
    baked = bake_texture(mesh, 128)
    chosen, weights = sample_surface(baked.vertices, baked.faces, 3000, np.random.default_rng(0))
    points = (baked.vertices[baked.faces[chosen]] * weights[..., None]).sum(axis=1)
    uv = (baked.uv[baked.faces[chosen]] * weights[..., None]).sum(axis=1)
    # Bilinear reading reaches half a texel beyond the charts: there the gutter has to carry on the colours.
    assert np.abs(sample_texture(baked.texture, uv) - color_at(points)).max() < 0.03
    assert (baked.uv >= 0).all() and (baked.uv <= 1).all()
    # Normals are those of the cube before it was cut: along its diagonals.
    assert np.allclose(np.abs(baked.normals), 1 / np.sqrt(3), atol=0.3)


def test_charts_do_not_overlap() -> None:
    pytest.importorskip("xatlas")
    baked = bake_texture(ball(3), 256)
    corners = baked.uv[baked.faces].astype(np.float64) * 256
    a, b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area = np.abs(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum() / 2
    assert area < 256 * 256
    counts = np.zeros((256, 256), dtype=int)
    from fastsam3d.meshes.rasterizer import rasterize

    for face in baked.faces:
        hit = rasterize(baked.uv * 256, np.ones(len(baked.uv)), face[None], 256, 256)
        counts.reshape(-1)[hit.pixels] += 1
    # Only texels whose centre lies exactly on an edge may belong to two faces.
    assert (counts > 1).mean() < 0.01


def test_a_simplified_mesh_keeps_the_finer_colours_and_trimesh_reads_them() -> None:
    pytest.importorskip("xatlas")
    pytest.importorskip("fast_simplification")
    mesh = ball(4)
    baked = Preparation(faces=300, texture=256).apply(mesh)
    assert len(baked.faces) <= 300
    loaded = trimesh.load(io.BytesIO(encode_glb(baked)), file_type="glb", process=False).to_mesh()
    picture = np.asarray(loaded.visual.material.baseColorTexture.convert("RGB"))
    assert picture.shape == (256, 256, 3)
    chosen, weights = sample_surface(loaded.vertices, loaded.faces, 2000, np.random.default_rng(0))
    points = (loaded.vertices[loaded.faces[chosen]] * weights[..., None]).sum(axis=1)
    uv = (loaded.visual.uv[loaded.faces[chosen]] * weights[..., None]).sum(axis=1)
    own = sample_texture(picture, np.stack([uv[:, 0], 1 - uv[:, 1]], axis=1))  # trimesh counts v from below
    # The file is y up; the nearest point of the ball lies along the radius.
    z_up = np.stack([points[:, 0], -points[:, 2], points[:, 1]], axis=1)
    expected = color_at(z_up / np.linalg.norm(z_up, axis=1, keepdims=True) * 0.4)
    assert np.abs(own - expected).max() < 0.05
    again = Preparation(faces=300, texture=256).apply(mesh)
    assert encode_glb(again) == encode_glb(baked)


def test_obj_with_its_material_and_picture(tmp_path) -> None:
    pytest.importorskip("xatlas")
    baked = bake_texture(cube(), 64)
    export_mesh(baked, tmp_path / "thing.obj")
    assert {path.name for path in tmp_path.iterdir()} == {"thing.obj", "thing.mtl", "thing_texture.png"}
    loaded = trimesh.load(tmp_path / "thing.obj", process=False)
    assert np.allclose(loaded.extents, 0.8, atol=1e-5)
    assert loaded.visual.material.image.size == (64, 64)
    places = np.stack([loaded.visual.uv[:, 0], 1 - loaded.visual.uv[:, 1]], axis=1)
    z_up = np.stack([loaded.vertices[:, 0], -loaded.vertices[:, 2], loaded.vertices[:, 1]], axis=1)
    colors = sample_texture(np.asarray(loaded.visual.material.image.convert("RGB")), places)
    assert np.abs(colors - color_at(z_up)).max() < 0.06


def test_the_picture_beside_an_obj_file_stays(tmp_path) -> None:
    pytest.importorskip("xatlas")
    photo = tmp_path / "thing.png"
    photo.write_bytes(b"the picture that it was made of")
    export_mesh(bake_texture(cube(), 64), tmp_path / "thing.obj")
    assert photo.read_bytes() == b"the picture that it was made of"


def test_gutters_take_the_colour_beside_them() -> None:
    picture = np.full((5, 5, 3), np.nan, dtype=np.float32)
    picture[2, 2] = [1, 0, 0]
    near = spread(picture, 1)
    assert np.allclose(near[1:4, 1:4], [1, 0, 0])
    assert np.isfinite(near).all()


def test_errors(monkeypatch) -> None:
    with pytest.raises(UserError, match="give 16 to 8192"):
        bake_texture(cube(), 9)
    monkeypatch.setitem(sys.modules, "xatlas", None)
    with pytest.raises(UserError, match=r"needs the package xatlas.*pip install 'fastsam3d\[texture\]'"):
        bake_texture(cube(), 64)
