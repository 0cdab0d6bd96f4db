"""Pinhole cameras in the PyTorch3D frame (x left, y up, z forward), row vectors: p_cam = (p_obj * s) @ R + t.

The image plane is described in tangent units: a point projects to (X / Z, Y / Z); the square full frame spans
[-F, F] in both, F = `half_tangent`. In an N x N image, in pixels: x = N / 2 (1 - X / (Z F)) and
y = N / 2 (1 - Y / (Z F)).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Camera:
    """A camera together with the pose of one object in its frame.

    Attributes:
        rotation: `[3, 3]`, p_cam = (p_obj * scale) @ rotation + translation.
        translation: `[3]`, in camera units.
        scale: object scale in camera units (isotropic).
        half_tangent: tangent of half the field of view of the square full frame.
    """

    rotation: np.ndarray
    translation: np.ndarray
    scale: float
    half_tangent: float

    def to_camera(self, points: np.ndarray) -> np.ndarray:
        """Object points `[N, 3]` to camera points `[N, 3]`."""
        return (points * self.scale) @ self.rotation + self.translation

    def tangents(self, points: np.ndarray) -> np.ndarray:
        """Object points `[N, 3]` to tangent coordinates `[N, 2]` (left, up)."""
        camera = self.to_camera(points)
        return camera[:, :2] / camera[:, 2:]

    def pixels(self, points: np.ndarray, size: int) -> np.ndarray:
        """Object points `[N, 3]` to pixel coordinates `[N, 2]` (x right, y down; the image spans 0..size)."""
        return size / 2 * (1 - self.tangents(points) / self.half_tangent)


def look_at_rotation(azimuth: float, elevation: float, roll: float) -> np.ndarray:
    """Object-to-camera rotation `[3, 3]` (row vectors) of a camera that looks at the object's origin.

    Angles in radians; azimuth 0 is the front (camera at -y), positive towards +x; roll turns the image.
    """
    away = np.array([np.sin(azimuth) * np.cos(elevation), -np.cos(azimuth) * np.cos(elevation), np.sin(elevation)])
    forward = -away
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    up = np.cross(right, forward)
    basis = np.stack([-right, up, forward], axis=1)
    c, s = np.cos(roll), np.sin(roll)
    return basis @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1.0]])


def turn_to(direction: np.ndarray) -> np.ndarray:
    """Smallest rotation Q `[3, 3]` (row vectors) with (0, 0, 1) @ Q = direction / |direction|."""
    d = direction / np.linalg.norm(direction)
    cross = np.array([[0, 0, d[0]], [0, 0, d[1]], [-d[0], -d[1], 0]])
    return (np.eye(3) + cross + cross @ cross / (1 + d[2])).T


def sample_camera(rng: np.random.Generator, surface: np.ndarray) -> Camera:
    """A random view: azimuth within 100 degrees of the front, elevation 5-50 degrees, roll sigma 3 degrees.

    Args:
        rng: source of randomness; its distribution is invariant under the mirror x -> -x.
        surface: points `[N, 3]` on the object; the frame is chosen to contain all of them and so that the
            longer side of their box takes 35-90 % of it, at a random place.
    """
    azimuth, elevation = np.deg2rad(rng.uniform(-100, 100)), np.deg2rad(rng.uniform(5, 50))
    base = look_at_rotation(azimuth, elevation, np.deg2rad(3) * rng.standard_normal())
    scale = float(np.exp(rng.uniform(np.log(0.3), np.log(3.0))))
    distance = scale * np.exp(rng.uniform(np.log(1.7), np.log(4.0)))
    fill = rng.uniform(0.35, 0.9)
    place = rng.uniform(-1, 1, 2) * (1 - fill)

    def turned(half_tangent: float) -> Camera:
        turn = turn_to(np.array([place[0] * half_tangent, place[1] * half_tangent, 1.0]))
        return Camera(base @ turn, np.array([0.0, 0.0, distance]) @ turn, scale, half_tangent)

    camera = turned(0.0)
    extent = np.ptp(camera.tangents(surface), axis=0).max()
    camera = turned(min(extent / 2 / fill, 0.8))
    needed = np.abs(camera.tangents(surface)).max() * 1.01
    return Camera(camera.rotation, camera.translation, scale, max(camera.half_tangent, needed))


def quaternion_from_matrix(matrix: np.ndarray) -> np.ndarray:
    """Unit quaternion wxyz (w >= 0) whose standard matrix equals `matrix` `[3, 3]`."""
    m = matrix
    candidates = np.array(
        [
            1 + m[0, 0] + m[1, 1] + m[2, 2],
            1 + m[0, 0] - m[1, 1] - m[2, 2],
            1 - m[0, 0] + m[1, 1] - m[2, 2],
            1 - m[0, 0] - m[1, 1] + m[2, 2],
        ]
    )
    best = int(candidates.argmax())
    d = candidates[best]
    rows = {
        0: [d, m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]],
        1: [m[2, 1] - m[1, 2], d, m[0, 1] + m[1, 0], m[0, 2] + m[2, 0]],
        2: [m[0, 2] - m[2, 0], m[0, 1] + m[1, 0], d, m[1, 2] + m[2, 1]],
        3: [m[1, 0] - m[0, 1], m[0, 2] + m[2, 0], m[1, 2] + m[2, 1], d],
    }
    quaternion = np.array(rows[best]) / (2 * np.sqrt(d))
    return quaternion if quaternion[0] >= 0 else -quaternion
