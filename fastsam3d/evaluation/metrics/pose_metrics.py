"""Pose metrics: boxes in the camera frame, errors of rotation, translation and scale, layout distance.

A pose maps object points to the camera frame as row vectors, p_cam = (p_obj * scale) @ R + translation with
R = quaternion_to_matrix(rotation) and rotation = (w, x, y, z), the convention of SAM 3D Objects.
"""

from __future__ import annotations

import re
from itertools import product
from typing import Any

import numpy as np

from fastsam3d.errors import UserError
from fastsam3d.evaluation.metrics.surfaces import as_array

FOLD_NAMES = {"twofold_z": 2, "threefold_z": 3, "fourfold_z": 4, "fivefold_z": 5, "sixfold_z": 6}


def quaternion_to_matrix(quaternion: Any) -> np.ndarray:
    """Rotation matrix [3, 3] of a quaternion (w, x, y, z), which need not have unit length."""
    quaternion = as_array(quaternion).reshape(4)
    w, x, y, z = quaternion / max(float(np.linalg.norm(quaternion)), 1e-12)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def apply_pose(points: Any, pose: Any) -> np.ndarray:
    """Object points [N, 3] in the camera frame of `pose` (attributes rotation, translation, scale)."""
    scale, translation = as_array(pose.scale).reshape(-1), as_array(pose.translation).reshape(3)
    return (as_array(points).reshape(-1, 3) * scale) @ quaternion_to_matrix(pose.rotation) + translation


def box_iou_3d(points_a: np.ndarray, points_b: np.ndarray) -> float:
    """IoU of the axis-aligned bounding boxes of two point sets in one frame; 0 where either is empty."""
    if len(points_a) == 0 or len(points_b) == 0:
        return 0.0
    low_a, high_a, low_b, high_b = points_a.min(0), points_a.max(0), points_b.min(0), points_b.max(0)
    shared = float(np.maximum(np.minimum(high_a, high_b) - np.maximum(low_a, low_b), 0).prod())
    union = float((high_a - low_a).prod() + (high_b - low_b).prod()) - shared
    return shared / union if union > 0 else 0.0


def rotation_angle(matrix: np.ndarray) -> float:
    """Angle in degrees, 0 to 180, of a rotation matrix."""
    # atan2 of both parts, because arccos of the trace alone loses all digits near 0 and 180 degrees.
    sine = np.linalg.norm([matrix[2, 1] - matrix[1, 2], matrix[0, 2] - matrix[2, 0], matrix[1, 0] - matrix[0, 1]])
    return float(np.degrees(np.arctan2(sine, np.trace(matrix) - 1)))


def symmetry_folds(symmetry: Any) -> int:
    """Number of rotations about z that map an object onto itself; 0 stands for all of them.

    "none" and "mirror" give 1 (a mirror image is no rotation, it leaves no freedom in the pose),
    "continuous_z" 0, "fourfold_z", "4-fold" or the number 4 give 4. Raises UserError for anything else.
    """
    if symmetry is None or symmetry in ("none", "mirror", ""):
        return 1
    if isinstance(symmetry, str):
        if symmetry.startswith("continuous"):
            return 0
        if symmetry in FOLD_NAMES:
            return FOLD_NAMES[symmetry]
        found = re.search(r"\d+", symmetry)
        symmetry = int(found.group()) if found else -1
    if not isinstance(symmetry, int) or symmetry < 1:
        raise UserError(f"symmetry {symmetry!r} is unknown: use none, mirror, continuous_z or the number of folds")
    return symmetry


def rotation_error(predicted: Any, reference: Any, symmetry: Any = "none") -> float:
    """Degrees between two quaternions (w, x, y, z), the least over the object's own symmetries.

    symmetry: see `symmetry_folds`; the axis is the object's z.
    """
    predicted, reference = quaternion_to_matrix(predicted), quaternion_to_matrix(reference)
    folds = symmetry_folds(symmetry)
    if folds == 0:  # only the direction of the axis, the image of (0, 0, 1), can be wrong
        a, b = predicted[2], reference[2]
        return float(np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b)), a @ b)))
    errors = []
    for k in range(folds):
        c, s = np.cos(2 * np.pi * k / folds), np.sin(2 * np.pi * k / folds)
        turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
        errors.append(rotation_angle(predicted.T @ (turn @ reference)))
    return min(errors)


def compare_poses(predicted: Any, reference: Any, symmetry: Any = "none") -> dict[str, float]:
    """Errors of a pose against the true one.

    "rotation_error_deg": degrees with symmetries folded; "translation_error": distance of the origins of the
    object divided by the true scale (so 1 is one side of the object's cube); "scale_error": mean absolute
    natural logarithm of the ratio of scales.
    """
    true_scale = np.abs(as_array(reference.scale).reshape(-1))
    ratio = np.maximum(np.abs(as_array(predicted.scale).reshape(-1)), 1e-12) / np.maximum(true_scale, 1e-12)
    shift = as_array(predicted.translation).reshape(3) - as_array(reference.translation).reshape(3)
    return {
        "rotation_error_deg": rotation_error(predicted.rotation, reference.rotation, symmetry),
        "translation_error": float(np.linalg.norm(shift) / max(float(true_scale.mean()), 1e-12)),
        "scale_error": float(np.abs(np.log(ratio)).mean()),
    }


def layout_distance(pose: Any, reference: Any, low: Any, high: Any) -> float:
    """Measures how far a layout moved from the reference run's: rotation, translation and scale in one number.

    The eight corners of the reference run's box (low, high: [3], object frame) are put into the camera frame
    by both poses; the distance is the root mean square of their displacements, divided by the diagonal of the
    box as the reference pose puts it. 0 is the same layout; 0.1 is a tenth of the object's diagonal.
    """
    bounds = np.stack([as_array(low).reshape(3), as_array(high).reshape(3)])
    corners = np.array([[bounds[i, 0], bounds[j, 1], bounds[k, 2]] for i, j, k in product((0, 1), repeat=3)])
    here, there = apply_pose(corners, pose), apply_pose(corners, reference)
    # Corners 0 and 7 are opposite; the object's scale may differ by axis, so the diagonal is measured after
    # posing.
    diagonal = float(np.linalg.norm(there[7] - there[0]))
    return float(np.sqrt(((here - there) ** 2).sum(1).mean()) / max(diagonal, 1e-12))
