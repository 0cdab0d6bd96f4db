"""The batched twins of objects, cameras and renderer give what the plain ones give."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastsam3d.procedural.batch import TableBatch, padded_tables
from fastsam3d.procedural.batch_views import grid_distances, render_crops, sample_cameras
from fastsam3d.procedural.cameras import Camera, look_at_rotation
from fastsam3d.procedural.objects import make_object
from fastsam3d.procedural.render import Window, crop_window, render_windows
from fastsam3d.procedural.shading import Light
from fastsam3d.procedural.tracing import TracedObject

SEEDS = (1, 2, 3, 5, 8, 13, 21, 34)


@pytest.fixture(scope="module")
def objects() -> list:
    return [make_object(seed) for seed in SEEDS]


@pytest.fixture(scope="module")
def batch(objects) -> TableBatch:
    return TableBatch.from_tables(*padded_tables([item.table for item in objects], 48))


def test_distances_and_colours_are_those_of_single_objects(objects, batch) -> None:
    points = torch.rand(len(objects), 500, 3, generator=torch.Generator().manual_seed(0)) - 0.5
    distance, color = batch.sdf_and_color(points)
    for row, item in enumerate(objects):
        assert torch.allclose(distance[row], item.sdf(points[row]), atol=1e-6)
        assert torch.equal(color[row], item.color(points[row]))
    assert torch.equal(batch.sdf(points), distance)


def test_views_are_those_of_the_plain_renderer(objects, batch) -> None:
    generator = torch.Generator().manual_seed(3)
    grid = grid_distances(batch)
    cameras = sample_cameras(grid, 2, generator)
    rgba, points = render_crops(batch, grid, cameras, generator, 32)
    for row, item in enumerate(objects):
        traced = TracedObject.prepare(item)
        assert torch.allclose(grid[row], traced.grid, atol=1e-6)
        requests = []
        for view in range(2):
            camera = Camera(
                cameras.rotation[row, view].double().numpy(),
                cameras.translation[row, view].double().numpy(),
                float(cameras.scale[row, view]),
                float(cameras.half_tangent[row, view]),
            )
            window = crop_window(camera, traced.surface_points())
            expected = [window.left, window.top, window.size]
            assert cameras.window[row, view].tolist() == pytest.approx(expected, abs=1e-4)
            light = Light(np.array([0.0, 0.0, 1.0]), 0.4)
            requests.append((camera, light, Window(*cameras.window[row, view].tolist())))
        for view, (_, mask, pointmap) in enumerate(render_windows(traced, requests, 32)):
            own = rgba[row, view, ..., 3] > 0
            assert (own != mask).float().mean() < 0.01  # grazing rays may differ
            both = own & mask
            camera = requests[view][0]
            plain = (pointmap[both].numpy() - camera.translation) / camera.scale
            assert np.median(np.abs(points[row, view][both].float().numpy() - plain)) < 2e-3
            assert torch.isnan(points[row, view][~own]).all()


def test_cameras_follow_the_plain_formulas(batch) -> None:
    cameras = sample_cameras(grid_distances(batch), 64, torch.Generator().manual_seed(0))
    rotation = cameras.rotation.double()
    identity = torch.eye(3, dtype=torch.float64).expand_as(rotation)
    assert torch.allclose(rotation @ rotation.transpose(-1, -2), identity, atol=1e-5)
    assert torch.allclose(torch.linalg.det(rotation), torch.ones(()).double(), atol=1e-5)
    # The camera looks from within 100 degrees of the front, at least 5 and at most 50 degrees above.
    eye = -(rotation @ cameras.translation.double()[..., None]).squeeze(-1)
    elevation = torch.rad2deg(torch.asin(eye[..., 2] / eye.norm(dim=-1)))
    azimuth = torch.rad2deg(torch.atan2(eye[..., 0], -eye[..., 1]))
    assert 4.9 < float(elevation.min()) < 10 and 45 < float(elevation.max()) < 50.1
    assert -100.1 < float(azimuth.min()) < -85 and 85 < float(azimuth.max()) < 100.1
    # Without roll and turn a camera's rotation is the plain one.
    plain = torch.from_numpy(look_at_rotation(0.3, 0.4, 0.0))
    from fastsam3d.procedural.batch_views import _look_at

    made = _look_at(torch.tensor([[0.3]]), torch.tensor([[0.4]]), torch.tensor([[0.0]]))[0, 0]
    assert torch.allclose(made.double(), plain, atol=1e-6)
