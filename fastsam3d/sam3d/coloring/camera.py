"""The camera of one object's crop, fitted to the object's outline.

Colours are taken from the picture at the places where points of the object appear in it. The focal length and the
centre of the picture need not be known: the box around the projected object is laid over the box around the mask. This
also removes most of an error in the place and the size of the pose.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

NEAREST = 0.1
"""Smallest depth of a point relative to that of the object: a wrong pose puts some points behind the camera."""


class RigidPose(NamedTuple):
    """Where an object stands: `p_camera = (p_object * scale) @ rotation + translation`.

    Attributes:
        rotation: `[3, 3]`, of row vectors.
        translation: `[3]`, camera frame (x left, y up, z forward).
        scale: `[3]`, camera units per object unit.
    """

    rotation: np.ndarray
    translation: np.ndarray
    scale: np.ndarray


class Box(NamedTuple):
    """A box of pixels, x to the right, y down: its first corner `[2]` and its extent `[2]`."""

    start: np.ndarray
    extent: np.ndarray


@dataclass(frozen=True)
class PictureCamera:
    """Projects points of one object into its crop.

    Attributes:
        pose: of the object.
        low: `[2]`, smallest tangent place (x right, y down) of the object.
        gain: `[2]`, pixels per tangent unit.
        start: `[2]`, pixel of `low`. Pixel k covers places from k to k + 1.
    """

    pose: RigidPose
    low: np.ndarray
    gain: np.ndarray
    start: np.ndarray

    def pixels(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Places in the crop `[N, 2]` (x right, y down) and depths `[N]` of points `[N, 3]` of the object."""
        places, depth = tangent_places(points, self.pose)
        return (places - self.low) * self.gain + self.start, depth

    @property
    def eye(self) -> np.ndarray:
        """The camera's place in the object frame `[3]`."""
        rotation, translation, scale = self.pose
        return -translation @ rotation.T / scale


def tangent_places(points: np.ndarray, pose: RigidPose) -> tuple[np.ndarray, np.ndarray]:
    """Tangents of the view `[N, 2]` (x right, y down) and depths `[N]` of points `[N, 3]` of the object."""
    camera = (points * pose.scale) @ pose.rotation + pose.translation
    depth = np.maximum(camera[:, 2], NEAREST * max(abs(float(pose.translation[2])), 1e-6))
    return -camera[:, :2] / depth[:, None], depth


def fitted_camera(points: np.ndarray, pose: RigidPose, box: Box) -> PictureCamera:
    """The camera that shows the points `[N, 3]` of an object exactly in a box of the picture."""
    places, _ = tangent_places(points, pose)
    low = places.min(axis=0)
    gain = box.extent / np.maximum(places.max(axis=0) - low, 1e-6)
    return PictureCamera(pose, low, gain, box.start)


def box_of(mask: np.ndarray) -> Box:
    """The box around a mask, bool `[H, W]`, not empty."""
    rows, columns = np.nonzero(mask)
    start = np.array([columns.min(), rows.min()], float)
    return Box(start, np.array([columns.max(), rows.max()], float) + 1 - start)
