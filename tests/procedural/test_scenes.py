"""Scenes: poses, masks and points agree with each other; objects do not touch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastsam3d.procedural import make_scene, render_scene
from fastsam3d.procedural.primitives import rotation_matrices
from fastsam3d.procedural.scene_render import trace_scene


@pytest.fixture(scope="module")
def scene():
    return make_scene(1_000_000_050, 3)


def test_points_of_each_mask_lie_on_that_object(scene) -> None:
    masks, pointmap = trace_scene(scene, 64)
    for placed, pose, mask in zip(scene.objects, scene.poses, masks, strict=True):
        assert mask.sum() > 30
        points = pointmap[mask]
        local = (points - pose.translation) @ rotation_matrices(pose.rotation[None])[0].T / pose.scale
        assert placed.object.sdf(torch.tensor(local).float()).abs().max() < 0.015


def test_the_ground_lies_under_the_objects_and_masks_do_not_overlap(scene) -> None:
    masks, pointmap = trace_scene(scene, 64)
    assert masks.sum(0).max() == 1
    ground = np.isfinite(pointmap).all(-1) & ~masks.any(0)
    world = (pointmap[ground] - scene.view.translation) @ scene.view.rotation.T
    assert np.abs(world[:, 2]).max() < 1e-3
    for placed in scene.objects:
        lowest = (placed.traced.surface_points() * placed.scale)[:, 2].min() + placed.position[2]
        assert lowest == pytest.approx(0, abs=1e-6)


def test_footprints_are_apart_and_everything_is_in_the_frame() -> None:
    for seed in range(4):
        scene = make_scene(seed, 4)
        for index, placed in enumerate(scene.objects):
            for other in scene.objects[:index]:
                gap = np.linalg.norm((placed.position - other.position)[:2])
                assert gap > placed.radius + other.radius
            pixels = scene.camera_of(index).pixels(placed.traced.surface_points(), 1)
            assert pixels.min() > 0 and pixels.max() < 1


def test_pictures_are_deterministic(scene) -> None:
    first, second = render_scene(scene, 32, 1), render_scene(make_scene(1_000_000_050, 3), 32, 1)
    assert np.array_equal(first.image, second.image)
    assert first.masks.shape == (3, 32, 32) and first.pointmap.shape == (32, 32, 3)
