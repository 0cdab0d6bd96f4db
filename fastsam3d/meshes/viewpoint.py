"""The camera of previews and turntables: its angle, and its axes for a direction to look from."""

from __future__ import annotations

import math

import numpy as np

FIELD_OF_VIEW = 28.0
"""Angle of the camera, in degrees: narrow enough not to distort, wide enough to look solid."""


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
