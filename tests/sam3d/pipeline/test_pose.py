"""Rotations, the pose decoder and the row-vector convention, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from fastsam3d.meshes.rotations import matrix_to_quaternion, quaternion_to_matrix
from fastsam3d.sam3d.models.config import PoseConfig
from fastsam3d.sam3d.pipeline.pose import Pose, decode_pose, rotation_6d_to_matrix

IDENTITY = PoseConfig((0.0,) * 6, (1.0,) * 6, (0.0,) * 3, (1.0,) * 3, 0.0, 1.0, 0.0, 1.0)
QUARTER_ABOUT_Z = torch.tensor([math.sqrt(0.5), 0.0, 0.0, math.sqrt(0.5)])


def random_quaternions(count: int) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(count, 4, generator=torch.Generator().manual_seed(3)), dim=1)


def test_quarter_turn_about_z_takes_x_to_y() -> None:
    turned = quaternion_to_matrix(QUARTER_ABOUT_Z) @ torch.tensor([1.0, 0.0, 0.0])
    assert torch.allclose(turned, torch.tensor([0.0, 1.0, 0.0]), atol=1e-6)


def test_quaternions_and_matrices_are_inverse_up_to_sign() -> None:
    quaternions = random_quaternions(200)
    back = matrix_to_quaternion(quaternion_to_matrix(quaternions))
    assert torch.allclose((back * quaternions).sum(dim=1).abs(), torch.ones(200), atol=1e-5)
    assert (back[:, 0] >= 0).all()


@pytest.mark.parametrize("axis", range(3))
def test_half_turns_have_no_real_part(axis: int) -> None:
    expected = torch.zeros(4)
    expected[1 + axis] = 1.0
    assert torch.allclose(matrix_to_quaternion(quaternion_to_matrix(expected)).abs(), expected, atol=1e-6)


def test_six_numbers_are_the_first_two_columns() -> None:
    # b1 along y; the second vector has a part along b1, which is removed, and leaves x; b3 = y x x = -z.
    matrix = rotation_6d_to_matrix(torch.tensor([0.0, 2.0, 0.0, 3.0, 5.0, 0.0]))
    expected = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])
    assert torch.allclose(matrix, expected)
    rotations = quaternion_to_matrix(random_quaternions(20))
    columns = torch.cat([rotations[..., 0], rotations[..., 1]], dim=-1)
    assert torch.allclose(rotation_6d_to_matrix(columns), rotations, atol=1e-5)


def test_points_are_row_vectors() -> None:
    pose = Pose(QUARTER_ABOUT_Z, torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 2.0, 2.0]))
    # (1, 0, 0) * 2 = (2, 0, 0); as a row times R it is the first row of R, (0, -1, 0) times 2.
    points = torch.tensor([[1.0, 0.0, 0.0]])
    assert torch.allclose(pose.apply(points), torch.tensor([[1.0, 0.0, 3.0]]), atol=1e-6)
    assert torch.allclose(pose.invert(pose.apply(points)), points, atol=1e-6)


def test_decoding_by_hand() -> None:
    latents = {
        "6drotation_normalized": torch.tensor([[[0.0, 1.0, 0.0, -1.0, 0.0, 0.0]]]),
        "translation": torch.tensor([[[0.5, -1.0, 0.0]]]),
        "scale": torch.tensor([[[math.log(1.0), math.log(2.0), math.log(6.0)]]]),
        "translation_scale": torch.tensor([[[9.0]]]),
    }
    pose = decode_pose(latents, torch.full((1, 3), 2.0), torch.tensor([[10.0, 20.0, 30.0]]), IDENTITY)
    # Columns y and -x: a quarter turn about z.
    assert torch.allclose(pose.rotation, QUARTER_ABOUT_Z, atol=1e-6)
    assert torch.allclose(pose.translation, torch.tensor([11.0, 18.0, 30.0]))
    # Mean of 1, 2 and 6 is 3, times the scene's scale.
    assert torch.allclose(pose.scale, torch.full((3,), 6.0))


def test_decoding_undoes_the_normalisation_of_the_latents() -> None:
    config = PoseConfig(
        (0.1, 0.2, 0.3, 0.0, -0.1, 0.5),
        (0.5, 0.6, 0.7, 0.8, 0.9, 1.1),
        (0.1, 0.0, 0.2),
        (2.0, 3.0, 0.5),
        -0.3,
        0.4,
        0.0,
        1.0,
    )
    scale, shift = torch.full((1, 3), 1.7), torch.tensor([[0.3, -0.2, 4.0]])
    pose = Pose(random_quaternions(1)[0], torch.tensor([0.5, 0.1, 3.0]), torch.full((3,), 0.8))
    columns = quaternion_to_matrix(pose.rotation)[:, :2].T.flatten()
    latents = {
        "6drotation_normalized": (columns - torch.tensor(config.rotation_mean)) / torch.tensor(config.rotation_std),
        "translation": ((pose.translation - shift) / 1.7 - torch.tensor(config.translation_mean))
        / torch.tensor(config.translation_std),
        "scale": ((pose.scale / 1.7).log() - config.scale_mean) / config.scale_std,
    }
    latents = {name: value.reshape(1, 1, -1) for name, value in latents.items()}
    decoded = decode_pose(latents, scale, shift, config)
    assert torch.allclose(quaternion_to_matrix(decoded.rotation), quaternion_to_matrix(pose.rotation), atol=1e-5)
    assert torch.allclose(decoded.translation, pose.translation, atol=1e-5)
    assert torch.allclose(decoded.scale, pose.scale, atol=1e-5)


def test_poses_become_plain_values() -> None:
    values = Pose(QUARTER_ABOUT_Z, torch.zeros(3), torch.ones(3)).to_dict()
    assert values["scale"] == [1.0, 1.0, 1.0]
    assert len(values["rotation_wxyz"]) == 4
