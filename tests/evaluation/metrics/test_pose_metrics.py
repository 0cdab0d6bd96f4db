from __future__ import annotations

import numpy as np
import pytest
from evaluation_shapes import Pose

from fastsam3d.errors import UserError
from fastsam3d.evaluation.metrics.pose_metrics import (
    apply_pose,
    box_iou_3d,
    compare_poses,
    layout_distance,
    quaternion_to_matrix,
    rotation_error,
)


def quaternion(axis, degrees):
    half = np.radians(degrees) / 2
    return np.array([np.cos(half), *(np.sin(half) * np.asarray(axis, float) / np.linalg.norm(axis))])


def product(a, b):
    """Hamilton product, written out: the matrix of it is matrix(a) @ matrix(b)."""
    w, v, x, u = a[0], np.asarray(a[1:]), b[0], np.asarray(b[1:])
    return np.array([w * x - v @ u, *(w * u + x * v + np.cross(v, u))])


def test_row_vectors_are_scaled_rotated_and_shifted_in_this_order():
    # The standard matrix of a quarter turn about z is [[0, -1, 0], [1, 0, 0], [0, 0, 1]]; rows of it serve
    # row vectors.
    pose = Pose(tuple(quaternion((0, 0, 1), 90)), (10, 20, 30), (2, 1, 1))
    assert apply_pose([[1, 0, 0], [0, 1, 0]], pose) == pytest.approx(np.array([[10, 18, 30], [11, 20, 30]]))


@pytest.mark.parametrize("degrees", [0, 1e-4, 15, 90, 179.5, 180])
def test_rotation_error_is_the_angle_between(degrees):
    start = quaternion((1, 2, 3), 40)
    assert rotation_error(product(start, quaternion((3, -1, 2), degrees)), start) == pytest.approx(degrees, abs=1e-6)


def test_symmetries_are_folded_about_the_object_axis():
    camera = quaternion((1, 1, 0), 70)
    # p_obj @ turn @ camera: the turn about the object's z stands on the left.
    turned = product(quaternion((0, 0, 1), 100), camera)
    assert rotation_error(turned, camera, "none") == pytest.approx(100)
    assert rotation_error(turned, camera, "mirror") == pytest.approx(100)
    assert rotation_error(turned, camera, "continuous_z") == pytest.approx(0, abs=1e-6)
    assert rotation_error(turned, camera, "4-fold") == pytest.approx(10)
    assert rotation_error(turned, camera, "twofold_z") == pytest.approx(80)
    tilted = product(quaternion((0, 0, 1), 100), product(quaternion((1, 0, 0), 25), camera))
    assert rotation_error(tilted, camera, "continuous_z") == pytest.approx(25)
    # A turn about the camera's axis is no symmetry of the object.
    assert rotation_error(product(camera, quaternion((0, 0, 1), 100)), camera, "continuous_z") > 10
    with pytest.raises(UserError, match="symmetry"):
        rotation_error(camera, camera, "helical")


def test_translation_and_scale_errors_by_hand():
    reference = Pose(translation=(0, 0, 4), scale=(2, 2, 2))
    errors = compare_poses(Pose(translation=(0, 1, 4), scale=(1, 1, 1)), reference)
    assert errors["translation_error"] == pytest.approx(0.5)
    assert errors["scale_error"] == pytest.approx(np.log(2))
    assert errors["rotation_error_deg"] == pytest.approx(0)


def test_box_iou_by_hand():
    a, b = np.array([[0, 0, 0], [2, 2, 2]]), np.array([[1, 0, 0], [3, 2, 2]])
    assert box_iou_3d(a, b) == pytest.approx(4 / 12)
    assert box_iou_3d(a, a) == 1
    assert box_iou_3d(a, a + 5) == 0
    assert box_iou_3d(a[:0], a) == 0


def test_layout_distance_of_a_shift_a_growth_and_a_turn():
    low, high, reference = (-0.5, -0.5, -0.5), (0.5, 0.5, 0.5), Pose(scale=(2, 2, 2))
    diagonal = 2 * 3**0.5
    assert layout_distance(reference, reference, low, high) == 0
    assert layout_distance(Pose(translation=(0, 0, 1), scale=(2, 2, 2)), reference, low, high) == pytest.approx(
        1 / diagonal
    )
    assert layout_distance(Pose(scale=(3, 3, 3)), reference, low, high) == pytest.approx(0.25)  # corners 3/2 of theirs
    half_turn = Pose(tuple(quaternion((0, 0, 1), 180)), scale=(2, 2, 2))
    # Each corner moves to the opposite one of its square: sqrt(8).
    assert layout_distance(half_turn, reference, low, high) == pytest.approx(8**0.5 / diagonal)


def test_quaternion_of_any_length_gives_a_rotation():
    matrix = quaternion_to_matrix(quaternion((1, 2, 3), 40) * 7)
    assert matrix @ matrix.T == pytest.approx(np.eye(3), abs=1e-12)
    assert np.linalg.det(matrix) == pytest.approx(1)
