"""Cameras, tracing and views: everything that is drawn must project back to where it was drawn."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastsam3d.procedural import make_object, make_view
from fastsam3d.procedural.cameras import Camera, look_at_rotation, quaternion_from_matrix, sample_camera, turn_to
from fastsam3d.procedural.primitives import rotation_matrices
from fastsam3d.procedural.render import FULL_FRAME, crop_window, pixel_rays
from fastsam3d.procedural.tracing import TracedObject, trace

FRONT = Camera(look_at_rotation(0.0, 0.0, 0.0), np.array([0.0, 0.0, 3.0]), 2.0, 0.5)


def test_the_front_camera_sees_plus_x_on_the_right_and_z_up() -> None:
    # camera at y = -1.5 (3 camera units / scale 2): x points left in the camera frame, y up, z forward
    points = np.array([[0.0, 0, 0], [0.25, 0, 0], [0, 0, 0.25], [0, 0.5, 0]])
    assert FRONT.to_camera(points) == pytest.approx(
        np.array([[0, 0, 3], [-0.5, 0, 3], [0, 0.5, 3], [0, 0, 4]]), abs=1e-9
    )
    assert FRONT.pixels(points, 60)[:3] == pytest.approx(np.array([[30, 30], [40, 30], [30, 20]]), abs=1e-9)


def test_azimuth_moves_the_camera_towards_plus_x_and_rotations_are_proper() -> None:
    rotation = look_at_rotation(np.pi / 2, 0.0, 0.0)  # from +x: the front (-y) lies on the left of the picture
    assert np.array([0, -1.0, 0]) @ rotation == pytest.approx([1, 0, 0], abs=1e-9)
    for angles in ((0.3, 0.5, 0.1), (-1.5, 0.2, -0.3)):
        rotation = look_at_rotation(*angles)
        assert rotation @ rotation.T == pytest.approx(np.eye(3), abs=1e-9)
        assert np.linalg.det(rotation) == pytest.approx(1)
        assert rotation_matrices(quaternion_from_matrix(rotation)[None])[0] == pytest.approx(rotation, abs=1e-9)
    direction = np.array([0.3, -0.2, 1.0])
    assert np.array([0, 0, 1]) @ turn_to(direction) == pytest.approx(direction / np.linalg.norm(direction))
    assert np.linalg.det(turn_to(direction)) == pytest.approx(1)


def test_quaternions_of_half_turns() -> None:
    for axis in range(3):
        matrix = -np.eye(3)
        matrix[axis, axis] = 1
        expected = np.zeros(4)
        expected[axis + 1] = 1
        assert np.abs(quaternion_from_matrix(matrix)) == pytest.approx(expected)


def test_pixel_rays_are_the_inverse_of_projection() -> None:
    rays = pixel_rays(FRONT, FULL_FRAME, 8).reshape(8, 8, 3)
    world = ((rays[2, 5].numpy() * 2.7) - FRONT.translation) @ FRONT.rotation.T / FRONT.scale
    assert FRONT.pixels(world[None], 8)[0] == pytest.approx([5.5, 2.5], abs=1e-5)


def test_rays_meet_a_sphere_at_the_known_depth() -> None:
    item = make_object(0, "snowman")
    item.table = item.table[:1].copy()
    item.table[0, 0], item.table[0, 1:4], item.table[0, 8:11], item.table[0, 16] = 2, 0, 0.3, 0
    traced = TracedObject.prepare(item)
    origins = torch.tensor([[0.0, -2, 0], [0.1, -2, 0], [0.4, -2, 0]])
    depth = trace(traced, origins, torch.tensor([[0.0, 1, 0]]).expand(3, 3), steps=40)
    assert depth[:2].tolist() == pytest.approx([1.7, 2 - (0.09 - 0.01) ** 0.5], abs=2e-3)
    assert depth[2] == torch.inf


def test_tracing_agrees_with_dense_marching() -> None:
    for seed in (2, 9):
        item = make_object(seed)
        traced = TracedObject.prepare(item)
        camera = sample_camera(np.random.default_rng(seed), traced.surface_points())
        rays = pixel_rays(camera, crop_window(camera, traced.surface_points()), 24)
        rotation = torch.tensor(camera.rotation).float()
        origin = (-(camera.rotation @ camera.translation) / camera.scale).astype(np.float32)
        origins, directions = torch.tensor(origin).expand(len(rays), 3), rays @ rotation.t()
        found = trace(traced, origins, directions, steps=40)
        depths = torch.arange(0, 1200) / 1000 + float(np.linalg.norm(origin)) - 0.6
        inside = item.sdf(origins[:, None] + directions[:, None] * depths[:, None]) < 0
        expected = torch.where(inside.any(1), depths[inside.int().argmax(1)], torch.inf)
        both = found.isfinite() & expected.isfinite()
        assert (found.isfinite() != expected.isfinite()).float().mean() < 0.02  # grazing rays
        # the march stops 1.5e-3 before the surface, which is more along the ray where it grazes
        assert ((found - expected).abs()[both] < 0.01).float().mean() > 0.97
        assert (found - expected).abs()[both].median() < 1.5e-3


@pytest.mark.parametrize("seed", [1_000_000_000, 1_000_000_003])
def test_view_points_lie_on_the_object_and_project_to_their_pixels(seed: int) -> None:
    view = make_view(seed, size=64)
    assert view.image.shape == (64, 64, 3) and view.image.dtype == np.uint8
    assert view.mask.dtype == bool and view.pointmap.dtype == np.float32
    assert np.isnan(view.pointmap[~view.mask]).all()
    points = view.pointmap[view.mask]
    rotation = rotation_matrices(view.pose.rotation[None])[0]
    local = (points - view.pose.translation) @ rotation.T / view.pose.scale
    assert view.object.sdf(torch.tensor(local).float()).abs().max() < 0.015
    rows, columns = np.nonzero(view.mask)
    assert view.camera.pixels(local, 64) == pytest.approx(np.stack([columns, rows], 1) + 0.5, abs=0.02)


def test_views_are_deterministic_and_hold_the_whole_object() -> None:
    first, second = make_view(123, size=48), make_view(123, size=48)
    assert np.array_equal(first.image, second.image)
    surface = TracedObject.prepare(first.object).surface_points()
    pixels = first.camera.pixels(surface, 48)
    assert pixels.min() > -0.3 and pixels.max() < 48.3
    rows, columns = np.nonzero(first.mask)
    assert np.abs(np.array([columns.min(), rows.min()]) - pixels.min(0)).max() < 1.5
    assert np.abs(np.array([columns.max(), rows.max()]) + 1 - pixels.max(0)).max() < 1.5


def test_sampled_cameras_keep_the_stated_ranges() -> None:
    surface = TracedObject.prepare(make_object(4)).surface_points()
    rng = np.random.default_rng(0)
    for _ in range(200):
        camera = sample_camera(rng, surface)
        eye = -(camera.rotation @ camera.translation) / camera.scale
        assert 1.69 < np.linalg.norm(eye) < 4.01
        assert 4.9 < np.degrees(np.arcsin(eye[2] / np.linalg.norm(eye))) < 50.1
        assert abs(np.degrees(np.arctan2(eye[0], -eye[1]))) < 100.1
        pixels = camera.pixels(surface, 1)
        assert pixels.min() >= 0 and pixels.max() <= 1
        assert 0.25 < np.ptp(pixels, axis=0).max() < 1.0
