"""Fewer faces, nearest surface points and closed surfaces, against trimesh and by hand."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
import trimesh
from known_shapes import ball, color_at, cube

from fastsam3d.errors import UserError
from fastsam3d.meshes.mesh import Mesh
from fastsam3d.meshes.nearest import closest_weights, nearest_on_surface
from fastsam3d.meshes.simplification import close_surface, is_watertight, signed_volume, simplify


def as_trimesh(mesh: Mesh) -> trimesh.Trimesh:
    return trimesh.Trimesh(mesh.vertices, mesh.faces, process=True)


def test_closest_points_of_a_triangle_by_hand() -> None:
    triangle = np.array([[0.0, 0, 0], [4, 0, 0], [0, 4, 0]])
    cases = {
        (1, 1, 5): (0.5, 0.25, 0.25),  # above the inside
        (2, -3, 1): (0.5, 0.5, 0),  # beside an edge
        (-1, -1, 0): (1, 0, 0),  # beyond a corner
        (4, 4, 2): (0, 0.5, 0.5),  # beside the long edge
        (9, -1, 0): (0, 1, 0),
    }
    points = np.array(list(cases), dtype=float)
    found = closest_weights(points, np.repeat(triangle[None], len(points), axis=0))
    assert np.allclose(found, list(cases.values()))
    # Without area: the nearest of its edges.
    flat = np.array([[[0.0, 0, 0], [2, 0, 0], [1, 0, 0]]])
    place = (closest_weights(np.array([[1.5, 3, 0]]), flat)[0][:, None] * flat[0]).sum(axis=0)
    assert np.allclose(place, [1.5, 0, 0])


def test_nearest_point_of_a_surface_against_all_faces() -> None:
    pytest.importorskip("scipy")
    mesh = ball(2)
    points = np.random.default_rng(0).normal(size=(200, 3)) * 0.4
    chosen, weights = nearest_on_surface(points, mesh.vertices, mesh.faces, "testing", "texture")
    found = (mesh.vertices[mesh.faces[chosen]] * weights[..., None]).sum(axis=1)
    corners = mesh.vertices[mesh.faces].astype(float)
    for point, own in zip(points, found, strict=True):
        each = closest_weights(np.repeat(point[None], len(corners), axis=0), corners)
        distance = np.linalg.norm((corners * each[..., None]).sum(axis=1) - point, axis=1).min()
        assert np.linalg.norm(own - point) == pytest.approx(distance, rel=1e-3)


def test_the_fast_search_equals_its_plain_twin_on_thin_and_empty_triangles() -> None:
    draw = np.random.default_rng(0)
    triangles = draw.normal(size=(200, 3, 3))
    triangles[50:100, 2] = triangles[50:100, 0] + 1e-6 * triangles[50:100, 2]  # thin
    triangles[100:120, 1] = triangles[100:120, 0]  # without area
    points = 2 * draw.normal(size=(200, 3))
    mesh_points, faces = triangles.reshape(-1, 3), np.arange(600).reshape(-1, 3)
    for index, point in enumerate(points):
        chosen, weights = nearest_on_surface(point[None], mesh_points, faces[index : index + 1], "testing", "texture")
        plain = closest_weights(point[None], triangles[index : index + 1])
        assert chosen.tolist() == [0] and weights.min() >= 0 and weights.sum() == pytest.approx(1)
        found, expected = (each[0] @ triangles[index] for each in (weights, plain))
        assert np.linalg.norm(found - point) == pytest.approx(np.linalg.norm(expected - point), abs=1e-6)


def test_fewer_faces_keep_shape_and_colours() -> None:
    pytest.importorskip("fast_simplification")
    mesh = ball(4)
    small = simplify(mesh, 600)
    assert len(mesh.faces) == 5120
    assert 500 <= len(small.faces) <= 600
    loaded = as_trimesh(small)
    assert loaded.is_watertight
    assert loaded.volume == pytest.approx(4 / 3 * np.pi * 0.4**3, rel=0.03)
    assert np.abs(small.vertex_colors - color_at(small.vertices)).max() < 0.03
    assert simplify(mesh, 10**6) is mesh
    with pytest.raises(UserError, match="at least 4"):
        simplify(mesh, 3)


def test_a_missing_package_is_named_with_the_command_that_brings_it(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "fast_simplification", None)
    with pytest.raises(UserError, match=r"needs the package fast-simplification.*pip install 'fastsam3d\[simplify\]'"):
        simplify(ball(2), 50)


def test_a_closed_surface_comes_back_as_it_is() -> None:
    mesh = ball(2)
    assert is_watertight(mesh)
    assert close_surface(mesh) is mesh
    assert signed_volume(mesh.vertices, mesh.faces) == pytest.approx(as_trimesh(mesh).volume)


def test_holes_are_closed_with_the_colour_of_their_rim() -> None:
    mesh = cube()
    # Without its top, whose rim is green.
    top = (mesh.vertices[mesh.faces][..., 2] > 0.39).all(axis=1)
    open_box = replace(mesh, faces=mesh.faces[~top])
    assert not is_watertight(open_box)
    closed = close_surface(open_box)
    loaded = as_trimesh(closed)
    assert is_watertight(closed) and loaded.is_watertight and loaded.is_winding_consistent
    assert loaded.volume == pytest.approx(0.8**3)
    assert np.allclose(closed.vertices[-1], [0, 0, 0.4])
    assert np.allclose(closed.vertex_colors[-1], [0.5, 0.9, 0.5], atol=1e-6)


def test_split_vertices_doubled_faces_and_pinched_holes_are_mended() -> None:
    mesh = ball(2)
    rng = np.random.default_rng(3)
    # Every face with vertices of its own, some faces gone, some there twice, one turned round.
    faces = mesh.faces[rng.permutation(len(mesh.faces))[:250]]
    faces = np.concatenate([faces, faces[:7], faces[9:10, ::-1]])
    loose = Mesh(
        mesh.vertices[faces].reshape(-1, 3), np.arange(3 * len(faces)).reshape(-1, 3), np.zeros((3 * len(faces), 3))
    )
    closed = close_surface(loose)
    loaded = as_trimesh(closed)
    assert is_watertight(closed) and loaded.is_watertight
    assert loaded.volume == pytest.approx(as_trimesh(mesh).volume, rel=0.05)


def test_a_surface_turned_inside_out_is_turned_back() -> None:
    mesh = cube()
    hollow = replace(mesh, faces=mesh.faces[1:, ::-1])
    assert signed_volume(close_surface(hollow).vertices, close_surface(hollow).faces) > 0
