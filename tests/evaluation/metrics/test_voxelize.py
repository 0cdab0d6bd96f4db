from __future__ import annotations

import numpy as np
import pytest
from evaluation_shapes import Ball, Box, box_mesh, joined

from fastsam3d.evaluation.metrics.signed_distance import marching_tetrahedra
from fastsam3d.evaluation.metrics.voxelize import voxel_centres, voxelize_mesh


def centres_inside(low, high, resolution):
    centres = voxel_centres(resolution)
    return ((centres > low) & (centres < high)).all(-1)


def test_box_fills_exactly_the_voxels_whose_centres_it_holds():
    low, high = (-0.33, -0.21, -0.4), (0.12, 0.37, 0.05)
    assert np.array_equal(voxelize_mesh(*box_mesh(low, high), 32), centres_inside(low, high, 32))


def test_faces_and_edges_that_pass_through_voxel_centres_are_met_once():
    # Centres of an 8-grid lie at odd sixteenths: every edge, diagonal and face of this box runs through
    # centres.
    solid = voxelize_mesh(*box_mesh((-5 / 16,) * 3, (5 / 16,) * 3), 8)
    assert solid[2:6, 2:6, 2:6].all()  # strictly inside
    assert not solid[:1].any()
    assert not solid[:, :, 7:].any()
    assert not solid[2:6, 2:6, 7].any()
    assert not solid[0, 2:6, 2:6].any()


def test_cube_and_shifted_cube():
    cube, shifted = box_mesh((-0.25,) * 3, (0.25,) * 3), box_mesh((-0.125, -0.25, -0.25), (0.375, 0.25, 0.25))
    a, b = voxelize_mesh(*cube), voxelize_mesh(*shifted)
    assert (a & b).sum() / (a | b).sum() == pytest.approx(0.6)  # 3/4 shared of 5/4


def test_overlapping_parts_unite_and_a_cavity_stays_empty():
    a, b = box_mesh((-0.4, -0.2, -0.2), (0.1, 0.2, 0.2)), box_mesh((-0.1, -0.2, -0.2), (0.4, 0.2, 0.2))
    whole = box_mesh((-0.4, -0.2, -0.2), (0.4, 0.2, 0.2))
    assert np.array_equal(voxelize_mesh(*joined(a, b)), voxelize_mesh(*whole))
    hole = box_mesh((-0.1,) * 3, (0.1,) * 3)
    hollow = joined(whole, (hole[0], hole[1][:, ::-1]))
    assert np.array_equal(voxelize_mesh(*hollow), voxelize_mesh(*whole) & ~voxelize_mesh(*hole))


def test_inside_out_mesh_is_turned_and_a_missing_face_does_not_leak():
    vertices, faces = box_mesh((-0.3, -0.2, -0.4), (0.3, 0.2, 0.4))
    solid = voxelize_mesh(vertices, faces)
    assert np.array_equal(voxelize_mesh(vertices, faces[:, ::-1]), solid)
    assert np.array_equal(voxelize_mesh(vertices, faces[2:]), solid)  # the whole lower side is gone


def test_round_surface_agrees_with_the_sign_of_its_distance():
    ball = Ball(0.37)
    solid, truth = voxelize_mesh(*marching_tetrahedra(ball.sdf)), ball.sdf(voxel_centres()) < 0
    assert (solid & truth).sum() / (solid | truth).sum() > 0.995
    assert solid.sum() / 64**3 == pytest.approx(4 / 3 * np.pi * 0.37**3, rel=0.01)


def test_parts_outside_the_grid_are_cut_and_nothing_gives_nothing():
    assert voxelize_mesh(*box_mesh((-2,) * 3, (2,) * 3), 8).all()
    assert not voxelize_mesh(*box_mesh((0.6,) * 3, (0.9,) * 3), 8).any()
    assert not voxelize_mesh(np.zeros((0, 3)), np.zeros((0, 3)), 8).any()


def test_marching_tetrahedra_close_a_box_and_look_outwards():
    vertices, faces = marching_tetrahedra(Box().sdf, resolution=32)
    corners = vertices[faces]
    volume = np.einsum("fi,fi->", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) / 6
    assert volume == pytest.approx(0.8 * 0.6 * 0.4, rel=0.02)
