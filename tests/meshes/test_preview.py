"""The rasteriser against hand-made triangles and a ray-free reference, and the pictures built on it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from fastsam3d.meshes.mesh import Mesh
from fastsam3d.meshes.preview import highlight, preview_sheet, render_mesh
from fastsam3d.meshes.splats.splats import Splats
from fastsam3d.meshes.viewpoint import FIELD_OF_VIEW, camera_of, view_rotation
from fastsam3d.sam3d.pipeline.pose import Pose
from fastsam3d.sam3d.pipeline.preprocessing import fronto_parallel_points
from fastsam3d.sam3d.pipeline.reconstruction import Reconstruction
from fastsam3d.sam3d.scene.placement import field_of_view_of, overlay


def ball(radius: float = 0.4, color: tuple[float, float, float] = (0.9, 0.2, 0.1)) -> Mesh:
    shape = trimesh.creation.icosphere(2, radius)
    colors = np.tile(np.array(color, dtype=np.float32), (len(shape.vertices), 1))
    return Mesh(shape.vertices.astype(np.float32), shape.faces.astype(np.int64), colors)


def test_views_turn_about_the_vertical() -> None:
    right, up, towards = view_rotation(0.0, 0.0)
    assert np.allclose([right, up, towards], [[1, 0, 0], [0, 0, 1], [0, -1, 0]])
    assert np.allclose(view_rotation(90.0, 0.0)[2], [1, 0, 0])
    turned = view_rotation(37.0, 25.0)
    assert np.allclose(turned @ turned.T, np.eye(3))
    assert np.linalg.det(turned) == pytest.approx(1.0)


def test_a_ball_of_the_radius_fits_exactly_into_the_view() -> None:
    distance, focal = camera_of(0.5, 200)
    # The ray that touches the ball makes an angle with the axis whose sine is radius / distance; it meets the edge.
    angle = math.asin(0.5 / distance)
    assert 2 * math.degrees(angle) == pytest.approx(FIELD_OF_VIEW)
    assert focal * math.tan(angle) == pytest.approx(100)


def test_a_red_ball_is_a_red_disc_on_a_light_ground() -> None:
    mesh = ball()
    picture = np.asarray(render_mesh(mesh.vertices, mesh.faces, mesh.vertex_colors, size=96)).astype(int)
    red = picture[..., 0] > picture[..., 1] + 60
    assert red[48, 48]
    assert not red[2, 2]
    assert picture[2, 2].min() > 200
    expected = math.pi * (48 / 1.06) ** 2
    assert red.sum() == pytest.approx(expected, rel=0.1)


def test_an_empty_mesh_gives_an_empty_picture() -> None:
    picture = render_mesh(np.zeros((0, 3)), np.zeros((0, 3), dtype=np.int64), np.zeros((0, 3)), size=32)
    assert picture.size == (32, 32)


def test_sheet_has_the_input_and_four_views() -> None:
    image = np.full((30, 50, 3), 90, dtype=np.uint8)
    mask = np.zeros((30, 50), dtype=bool)
    mask[8:22, 18:32] = True
    sheet = preview_sheet(image, mask, ball(), tile=64)
    assert isinstance(sheet, Image.Image)
    assert sheet.size == (256, 128)
    marked = np.asarray(highlight(image, mask, 100))
    assert marked[50, 50].tolist() == [90, 90, 90]
    assert marked[25, 10].min() > 190


def test_gaussians_get_a_row_below_the_mesh_or_its_place() -> None:
    """One round green Gaussian: a green disc in the middle of each of its four tiles, and nothing red there."""
    image, mask = np.full((30, 50, 3), 90, dtype=np.uint8), np.ones((30, 50), dtype=bool)
    ends = torch.tensor([[-0.4, 0, 0], [0.4, 0, 0], [0, 0, 0]])
    splats = Splats(
        ends,
        torch.eye(3).expand(3, 3, 3).contiguous(),
        torch.full((3, 3), 0.1),
        torch.tensor([0.0, 0.0, 0.99]),  # the first two are not seen, but the camera keeps them in the picture
        torch.tensor([[0.0, 1.0, 0.0]]).repeat(3, 1),
    )
    both = np.asarray(preview_sheet(image, mask, ball(), tile=64, splats=splats)).astype(int)
    alone = np.asarray(preview_sheet(image, mask, None, tile=64, splats=splats)).astype(int)
    plain = np.asarray(preview_sheet(image, mask, ball(), tile=64)).astype(int)
    assert both.shape == (192, 256, 3) and alone.shape == (128, 256, 3)
    assert np.array_equal(both[:128], plain)
    below = [both[128:, 64 * column : 64 * (column + 1)] for column in range(4)]
    beside = [alone[64 * row : 64 * (row + 1), 64 * column : 64 * (column + 1)] for row in (0, 1) for column in (2, 3)]
    for tile in below + beside:
        assert tile[32, 32, 1] > tile[32, 32, 0] + 150
        rows, columns = np.nonzero(tile[..., 1] > tile[..., 0] + 60)
        assert rows.mean() == pytest.approx(31.5, abs=0.6) and columns.mean() == pytest.approx(31.5, abs=0.6)
        assert (tile[[0, -1]] == 255).all()


def test_overlay_draws_an_object_where_its_pose_says() -> None:
    mesh = ball(0.1)
    # 0.2 to the left (+x) of the axis at depth 1.
    pose = Pose(torch.tensor([1.0, 0, 0, 0]), torch.tensor([0.2, 0.0, 1.0]), torch.ones(3))
    item = Reconstruction(mesh, pose, None, None, 0)  # type: ignore[arg-type]
    drawn = np.asarray(overlay(np.zeros((100, 100, 3), dtype=np.uint8), [item], opacity=1.0))
    rows, columns = np.nonzero(drawn[..., 0] > 30)
    focal = 50 / math.tan(math.radians(30))
    assert columns.mean() == pytest.approx(50 - 0.2 * focal, abs=1.5)
    assert rows.mean() == pytest.approx(50, abs=1.5)
    assert np.ptp(columns) == pytest.approx(0.2 * focal, abs=2.5)


def test_field_of_view_is_recovered_from_points() -> None:
    points = fronto_parallel_points(torch.ones(40, 60, dtype=torch.bool), 47.0).reshape(40, 60, 3).numpy() * 3.0
    points[:5] = np.nan
    assert field_of_view_of(points) == pytest.approx(47.0, abs=1e-3)
    assert field_of_view_of(np.full((4, 4, 3), np.nan)) == 60.0
