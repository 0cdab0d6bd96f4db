"""The camera of previews and turntables: its angle, its distance, and its axes for a direction to look from."""

from __future__ import annotations

import math

import numpy as np

FIELD_OF_VIEW = 28.0
"""Angle of the camera, in degrees: narrow enough not to distort, wide enough to look solid."""
MARGIN = 1.06
"""Radius that a view shows, in radii of the object."""


def view_rotation(azimuth: float, elevation: float) -> np.ndarray:
    """Computes the viewer's axes in the object frame (z up). Rows: right, up, towards the viewer; `[3, 3]`.

    Args:
        azimuth: degrees; 0 looks along +y, as from the front, 90 from +x.
        elevation: degrees above the horizon.
    """
    a, e = math.radians(azimuth), math.radians(elevation)
    towards = [math.sin(a) * math.cos(e), -math.cos(a) * math.cos(e), math.sin(e)]
    right = [math.cos(a), math.sin(a), 0.0]
    return np.array([right, np.cross(towards, right), towards])


def shown_radius(farthest: float) -> float:
    """Computes half of the side of the square that a view shows, so that the whole object fits from every side.

    Args:
        farthest: largest distance of a point of the object from the middle of its box.
    """
    return MARGIN * max(farthest, 1e-6)


def camera_of(radius: float, size: int) -> tuple[float, float]:
    """Computes the camera of a view.

    Args:
        radius: of the ball that fits into the view.
        size: side of the view in pixels.

    Returns:
        (distance of the camera from the middle of the ball, in the unit of the radius; focal length in pixels).
    """
    half = math.radians(FIELD_OF_VIEW) / 2
    return radius / math.sin(half), size / 2 / math.tan(half)
