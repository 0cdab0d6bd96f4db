"""Gaussians looked at: blending, the grid, gathering on a surface, pictures, and their files."""

from __future__ import annotations

import json
import math
import struct

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fastsam3d.errors import UserError
from fastsam3d.meshes.formats import format_to_write
from fastsam3d.meshes.formats.ply import encode_gaussians
from fastsam3d.meshes.formats.splat import encode_splat
from fastsam3d.meshes.gaussians import Gaussian
from fastsam3d.meshes.geometry import Z_UP_TO_Y_UP
from fastsam3d.meshes.rotations import quaternion_to_matrix
from fastsam3d.meshes.splats.compositing import composite
from fastsam3d.meshes.splats.gathering import Gathering, fitted_gathering, gather_colors, gather_colors_plain
from fastsam3d.meshes.splats.gltf import splats_glb
from fastsam3d.meshes.splats.grid import make_levels
from fastsam3d.meshes.splats.reading import read_splats
from fastsam3d.meshes.splats.rendering import render_splats
from fastsam3d.meshes.splats.splats import Splats, splats_of


def random_splats(count: int, deviation: float, seed: int = 0) -> Splats:
    """Gaussians about a sphere of radius 0.4, of sizes that differ by a factor of ten."""
    draw = torch.Generator().manual_seed(seed)
    rotation = F.normalize(torch.randn(count, 4, generator=draw), dim=1)
    return Splats(
        F.normalize(torch.randn(count, 3, generator=draw), dim=1) * 0.4,
        quaternion_to_matrix(rotation).transpose(1, 2).contiguous(),
        deviation * torch.exp(0.7 * torch.randn(count, 3, generator=draw)),
        torch.rand(count, generator=draw),
        torch.rand(count, 3, generator=draw),
    )


def flat_splats(heights: list[float], opacities: list[float], colors: list[list[float]]) -> Splats:
    """Flat round Gaussians above each other, level, with a deviation of 0.1."""
    count = len(heights)
    centers = torch.zeros(count, 3)
    centers[:, 2] = torch.tensor(heights)
    return Splats(
        centers,
        torch.eye(3).repeat(count, 1, 1),
        torch.tensor([[0.1, 0.1, 0.001]]).repeat(count, 1),
        torch.tensor(opacities),
        torch.tensor(colors),
    )


def raw_gaussian(count: int = 5) -> Gaussian:
    draw = torch.Generator().manual_seed(1)
    sizes = (3,), (1, 3), (3,), (4,), (1,)
    return Gaussian(*(torch.randn(count, *size, generator=draw) for size in sizes))


def test_blending_lets_through_what_the_first_entries_leave():
    ray, alpha = torch.tensor([0, 0, 2]), torch.tensor([0.6, 0.5, 0.9])
    sums, weight = composite(ray, alpha, torch.eye(3), 3)
    assert torch.allclose(sums, torch.tensor([[0.6, 0.2, 0.0], [0, 0, 0], [0, 0, 0.9]]))
    assert torch.allclose(weight, torch.tensor([0.8, 0.0, 0.9]))


def test_a_point_of_a_surface_sees_the_upper_gaussian_first():
    splats = flat_splats([-0.01, 0.01], [0.5, 0.6], [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    points, up = torch.tensor([[0.0, 0.0, 0.0], [0.1, 0.0, 0.0]]), torch.tensor([[0.0, 0.0, 1.0]] * 2)
    colors, coverage = gather_colors(points, up, splats, depth=0.02)
    assert torch.allclose(colors[0], torch.tensor([0.6, 0.0, 0.2]) / 0.8)
    assert coverage[0] == pytest.approx(0.8)
    upper, lower = 0.6 * math.exp(-0.5), 0.5 * math.exp(-0.5)  # one deviation away
    assert coverage[1] == pytest.approx(upper + (1 - upper) * lower)
    from_below, _ = gather_colors(points[:1], -up[:1], splats, depth=0.02)
    assert torch.allclose(from_below[0], torch.tensor([0.5 * 0.6, 0.0, 0.5]) / 0.8)


def test_gaussians_beyond_the_layer_hide_nothing():
    splats = flat_splats([0.0, 0.1], [0.9, 0.9], [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    colors, _ = gather_colors(torch.zeros(1, 3), torch.tensor([[0.0, 0.0, 1.0]]), splats, depth=0.05)
    assert torch.allclose(colors[0], torch.tensor([0.0, 1.0, 0.0]))


def test_the_layer_is_as_deep_as_the_gaussians_lie_under_the_surface():
    # Deviation 0.1, so the default depth is a little over 0.1. Red Gaussians lie 0.25 under the plane z = 0, and blue
    # ones 0.2 above it, as on another surface: they must not hide the red ones.
    side = torch.linspace(-0.5, 0.5, 11)
    x, y = (each.flatten() for each in torch.meshgrid(side, side, indexing="ij"))
    count = len(x)
    heights, tints = [0.2] * count + [-0.25] * count, [[0.0, 0.0, 1.0]] * count + [[1.0, 0.0, 0.0]] * count
    splats = flat_splats(heights, [0.95] * 2 * count, tints)
    splats.centers[:, 0], splats.centers[:, 1] = x.repeat(2), y.repeat(2)
    points, up = torch.stack([x, y, 0 * x], dim=1), torch.tensor([0.0, 0.0, 1.0]).expand(len(x), 3)
    assert gather_colors(points, up, splats)[1].max() == 0
    colors, coverage = fitted_gathering(splats, points, up).colors(points, up)
    assert coverage.min() > 0.9
    assert torch.allclose(colors, torch.tensor([1.0, 0.0, 0.0]).expand(len(x), 3), atol=1e-5)
    near = flat_splats([0.0], [0.9], [[0.0, 1.0, 0.0]])
    assert fitted_gathering(near, torch.zeros(1, 3), up[:1]).below == Gathering(near).depth


@pytest.mark.parametrize("deviation", [0.02, 0.2])
def test_gathering_equals_its_plain_twin(deviation, monkeypatch):
    monkeypatch.setattr("fastsam3d.meshes.splats.gathering.PAIRS", 1000)  # many parts
    splats = random_splats(200, deviation)
    normals = F.normalize(torch.randn(60, 3, generator=torch.Generator().manual_seed(2)), dim=1)
    for layer in ((0.01, None), (0.2, None), (0.02, 0.3)):
        fast, plain = (way(0.4 * normals, normals, splats, *layer) for way in (gather_colors, gather_colors_plain))
        assert torch.allclose(fast[0], plain[0], atol=2e-5)
        assert torch.allclose(fast[1], plain[1], atol=2e-5)
        assert plain[1].max() > 0.5


def test_points_without_gaussians_are_not_covered():
    up = torch.tensor([[0.0, 0.0, 1.0]])
    for splats in (random_splats(3, 0.01), random_splats(0, 0.01)):
        colors, coverage = gather_colors(torch.tensor([[9.0, 9.0, 9.0]]), up, splats)
        assert coverage.tolist() == [0.0] and colors.tolist() == [[0.0, 0.0, 0.0]]


def test_the_grid_lists_every_ball_that_a_point_lies_in_once():
    draw = torch.Generator().manual_seed(0)
    centers, points = torch.rand(300, 3, generator=draw), torch.rand(200, 3, generator=draw) * 1.4 - 0.2
    radii = 0.01 + 0.3 * torch.rand(300, generator=draw) ** 3
    levels = make_levels(centers, radii, points)
    assert len(levels) > 2
    for row, point in enumerate(points):
        listed = torch.cat([level.members[level.begin[row] :][: level.length[row]] for level in levels]).tolist()
        inside = torch.nonzero((centers - point).norm(dim=1) <= radii).flatten().tolist()
        assert len(listed) == len(set(listed)) and set(inside) <= set(listed)
    assert sum(int(level.length.sum()) for level in levels) < 0.5 * 300 * 200


def test_points_far_from_all_balls_have_empty_lists():
    centers, radii = torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]), torch.tensor([0.1, 0.1])
    draw = torch.Generator().manual_seed(0)
    directions = F.normalize(torch.randn(100, 3, generator=draw), dim=1)
    for distance in (3.0, 100.0, 1e7):
        (level,) = make_levels(centers, radii, 0.5 + distance * directions)
        assert int(level.length.sum()) == 0


def test_a_picture_shows_the_nearer_gaussian_in_front():
    splats = flat_splats([0.0, 0.2], [0.5, 0.6], [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    picture, cover = render_splats(splats, torch.eye(3), torch.zeros(3), math.inf, 100.0, 65)
    # Ten pixels are one deviation; each is wider by the smoothing of 0.3 square pixels, and fainter for it.
    faint = 100 / 100.3
    front, back = 0.6 * faint, 0.5 * faint
    assert torch.allclose(picture[32, 32], torch.tensor([front, 0.0, (1 - front) * back]), atol=1e-4)
    assert cover[32, 32] == pytest.approx(1 - (1 - front) * (1 - back), abs=1e-4)
    fall = math.exp(-0.5 * 100 / 100.3) * faint
    assert cover[32, 42] == pytest.approx(1 - (1 - 0.6 * fall) * (1 - 0.5 * fall), abs=1e-4)
    assert cover[0, 0] == 0


def test_perspective_makes_near_gaussians_larger():
    areas = []
    for height in (-0.5, 0.5):
        splats = flat_splats([height], [0.9], [[1.0, 1.0, 1.0]])
        _, cover = render_splats(splats, torch.eye(3), torch.zeros(3), 2.0, 100.0, 129)
        areas.append(float((cover > 0.1).sum()))
    assert areas[1] / areas[0] == pytest.approx((2.5 / 1.5) ** 2, rel=0.1)


def test_strips_of_rows_change_nothing(monkeypatch):
    splats = random_splats(100, 0.05)
    whole = render_splats(splats, torch.eye(3), torch.zeros(3), 2.0, 60.0, 48)
    monkeypatch.setattr("fastsam3d.meshes.splats.rendering.PAIRS", 200)
    parts = render_splats(splats, torch.eye(3), torch.zeros(3), 2.0, 60.0, 48)
    assert torch.allclose(whole[0], parts[0], atol=1e-6) and torch.allclose(whole[1], parts[1], atol=1e-6)


def test_a_splat_file_holds_32_bytes_for_each_gaussian():
    splats = flat_splats([0.0, 0.25], [0.2, 1.0], [[0.0, 0.2, 1.0], [1.0, 0.4, 0.0]])
    half = math.sqrt(0.5)
    # The second one is turned by 90 degrees about z: its first axis points along y.
    splats.axes[1] = torch.tensor([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    splats.deviations[1] = torch.tensor([0.3, 0.2, 0.1])
    data = encode_splat(splats)
    assert len(data) == 64
    first, second = (struct.unpack("<6f8B", data[place : place + 32]) for place in (0, 32))
    # The larger and more opaque one comes first.
    assert first[:6] == pytest.approx((0, 0, 0.25, 0.3, 0.2, 0.1))
    assert first[6:10] == (255, 102, 0, 255) and second[6:10] == (0, 51, 255, 51)
    assert second[:6] == pytest.approx((0, 0, 0, 0.1, 0.1, 0.001))
    assert second[10:] == (255, 128, 128, 128)  # 128 q + 128 of (1, 0, 0, 0), of which 256 does not fit into a byte
    assert first[10:] == (round(128 * half + 128), 128, 128, round(128 * half + 128))
    assert format_to_write("a.splat").encode_gaussians is encode_splat


def test_a_3dgs_file_is_read_as_it_was_written(tmp_path):
    gaussian = raw_gaussian()
    (tmp_path / "a.ply").write_bytes(encode_gaussians(gaussian))
    read, own = read_splats(tmp_path / "a.ply"), splats_of(gaussian)
    for name in ("centers", "axes", "deviations", "opacities", "colors"):
        assert torch.allclose(getattr(read, name), getattr(own, name), atol=1e-5), name


@pytest.mark.parametrize("name", ["xyz", "features_dc", "scaling", "rotation", "opacity"])
def test_gaussians_with_a_value_that_is_not_finite_are_left_out(name):
    gaussian, whole = raw_gaussian(), splats_of(raw_gaussian())
    getattr(gaussian, name)[1] = math.nan
    kept = splats_of(gaussian)
    for field in ("centers", "axes", "deviations", "opacities", "colors"):
        assert torch.equal(getattr(kept, field), getattr(whole, field)[[0, 2, 3, 4]]), field


def test_a_3dgs_file_has_finite_values_only():
    gaussian = raw_gaussian()
    gaussian.xyz[1, 2], gaussian.scaling[3, 0] = math.nan, math.inf
    data = encode_gaussians(gaussian)
    assert b"element vertex 3\n" in data
    values = np.frombuffer(data[data.index(b"end_header\n") + 11 :], "<f4").reshape(3, 17)
    assert np.isfinite(values).all()
    assert values[:, :3] == pytest.approx(raw_gaussian().get_xyz[[0, 2, 4]].numpy())


@pytest.mark.parametrize("encode", [encode_splat, splats_glb, encode_gaussians])
def test_no_file_is_written_of_gaussians_without_a_finite_value(encode):
    gaussian = raw_gaussian()
    gaussian.opacity[:] = math.nan
    with pytest.raises(UserError, match="no Gaussians with finite values to write"):
        encode(gaussian)


def test_files_without_gaussians_are_refused(tmp_path):
    (tmp_path / "points.ply").write_text(
        "ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\nproperty float z\n"
        "end_header\n0 0 0\n"
    )
    with pytest.raises(UserError, match="holds no Gaussians: its points have no f_dc_0"):
        read_splats(tmp_path / "points.ply")
    with pytest.raises(TypeError, match="has no get_xyz"):
        splats_of(object())


def test_the_gltf_file_holds_activated_values_with_y_up(tmp_path):
    gaussian = raw_gaussian()
    data = splats_glb(gaussian, "vase")
    length = struct.unpack("<I", data[12:16])[0]
    document = json.loads(data[20 : 20 + length])
    binary = data[28 + length :]
    primitive = document["meshes"][0]["primitives"][0]

    def values(name: str) -> np.ndarray:
        accessor = document["accessors"][primitive["attributes"][name]]
        view = document["bufferViews"][accessor["bufferView"]]
        return np.frombuffer(binary, "<f4", view["byteLength"] // 4, view["byteOffset"]).reshape(accessor["count"], -1)

    assert document["extensionsUsed"] == ["KHR_gaussian_splatting"]
    assert primitive["extensions"]["KHR_gaussian_splatting"]["colorSpace"] == "srgb_rec709_display"
    x, y, z = gaussian.get_xyz.T.numpy()
    assert np.allclose(values("POSITION"), np.stack([x, z, -y], axis=1))
    assert np.allclose(values("KHR_gaussian_splatting:SCALE"), gaussian.get_scaling.numpy())
    assert np.allclose(values("KHR_gaussian_splatting:OPACITY")[:, 0], gaussian.get_opacity[:, 0].numpy())
    # The covariance of the file's rotation and scale is that of the Gaussians, turned.
    x, y, z, w = values("KHR_gaussian_splatting:ROTATION").T
    turned = quaternion_to_matrix(torch.tensor(np.stack([w, x, y, z], axis=1)))
    own = quaternion_to_matrix(gaussian.get_rotation)
    for matrix in (turned, own):
        matrix *= gaussian.get_scaling[:, None, :]
    expected = Z_UP_TO_Y_UP.T @ (own @ own.transpose(1, 2)).double().numpy() @ Z_UP_TO_Y_UP
    assert np.allclose((turned @ turned.transpose(1, 2)).numpy(), expected, atol=1e-6)
    assert format_to_write(tmp_path / "vase_splats.glb").name == "splats"
    assert format_to_write(tmp_path / "vase.glb").name == "glb"
