"""Shape metrics between surfaces: chamfer distance, F-score, normal consistency, surface occupancy.

The protocol is that of the SAM 3D Objects evaluation (prediction and ground truth normalised separately to
[-1, 1], points drawn uniformly over the surface), without the ICP alignment, because the frame is known here,
and with 30,000 instead of 1,000,000 points.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from fastsam3d.basics.optional import optional_module
from fastsam3d.errors import UserError

SURFACE_POINTS = 30_000
THRESHOLDS = (0.05, 0.02, 0.01)
EMPTY_DISTANCE = 3**0.5
"""Chamfer distance of an empty surface: half the diagonal of the [-1, 1] cube, very bad but finite."""


@dataclass(frozen=True)
class Surface:
    """Points spread uniformly over a surface.

    points: [P, 3]; normals: [P, 3] of unit length; low, high: [3] corners of the bounding box of the surface
    itself (a little larger than that of the points). Everything in the frame of the object.
    """

    points: np.ndarray
    normals: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @property
    def empty(self) -> bool:
        """Tells whether there is no surface at all."""
        return len(self.points) == 0

    @cached_property
    def tree(self) -> Any:
        """Search tree of the points; a surface that is compared with many others makes it once."""
        return optional_module("scipy.spatial", "measuring", "bench").cKDTree(self.points)

    def scaled(self, factor: float) -> Surface:
        """The surface with all coordinates multiplied by `factor`."""
        return Surface(self.points * factor, self.normals, self.low * factor, self.high * factor)

    @cached_property
    def normalised(self) -> Surface:
        """The surface with the centre of its box at the origin and its longest side from -1 to 1."""
        if self.empty:
            return self
        centre = (self.low + self.high) / 2
        half = max(float((self.high - self.low).max()) / 2, 1e-9)
        return Surface(
            (self.points - centre) / half,
            self.normals,
            (self.low - centre) / half,
            (self.high - centre) / half,
        )


def as_array(value: Any, dtype: type = np.float64) -> np.ndarray:
    """A numpy array of a tensor on any device, an array or a sequence."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().float() if value.is_floating_point() else value.detach().cpu()
        value = value.numpy()
    return np.asarray(value, dtype=dtype)


def sample_surface(vertices: Any, faces: Any, count: int, generator: np.random.Generator) -> Surface:
    """Draws `count` points uniformly by area from a triangle mesh.

    vertices: [V, 3]; faces: [F, 3] indices. A mesh without area gives a surface without points.
    """
    vertices = as_array(vertices).reshape(-1, 3)
    faces = as_array(faces, np.int64).reshape(-1, 3)
    corners = vertices[faces]
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    doubled = np.linalg.norm(cross, axis=1)
    doubled[~np.isfinite(doubled)] = 0.0
    cumulative = np.cumsum(doubled)
    if count <= 0 or len(faces) == 0 or cumulative[-1] <= 0:
        nothing = np.zeros((0, 3))
        return Surface(nothing, nothing, np.zeros(3), np.zeros(3))
    # side="right" so that a face of zero area, whose interval is empty, is never hit.
    chosen = np.searchsorted(cumulative, generator.random(count) * cumulative[-1], side="right")
    chosen = np.minimum(chosen, len(faces) - 1)
    root, across = np.sqrt(generator.random((count, 1))), generator.random((count, 1))
    a, b, c = (corners[chosen, i] for i in range(3))
    points = (1 - root) * a + root * (1 - across) * b + root * across * c
    normals = cross[chosen] / np.maximum(doubled[chosen, None], 1e-30)
    used = corners[doubled > 0].reshape(-1, 3)
    return Surface(points, normals, used.min(0), used.max(0))


def f_score(precision: float, recall: float) -> float:
    """Harmonic mean; 0 where both are 0."""
    return 0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)


def threshold_name(threshold: float) -> str:
    """Column name of an F-score: 0.05 -> "f1_005"."""
    return f"f1_{round(threshold * 100):03d}"


def compare_surfaces(
    prediction: Surface, reference: Surface, *, normalise: str = "separately", thresholds: tuple = THRESHOLDS
) -> dict[str, float]:
    """Chamfer distances, F-scores in percent and normal consistency of two surfaces.

    normalise: "separately" maps each surface's own bounding box to [-1, 1] (longest side; the published
    protocol, forgiving a wrong size or place in the frame); "none" takes the points as they are.

    Returns "cd" (mean of the two directed mean nearest distances), "cd_squared" (the same of squared
    distances), "f1_005" ... (percent; share of points closer than the threshold, harmonic mean of both
    directions) and "normal_consistency" (mean absolute cosine between the normals of nearest points, 1 =
    equal).

    Raises UserError for another `normalise`.
    """
    if normalise not in ("separately", "none"):
        raise UserError(f"normalise={normalise!r} is unknown: use 'separately' or 'none'")
    if prediction.empty or reference.empty:
        return {
            "cd": EMPTY_DISTANCE,
            "cd_squared": EMPTY_DISTANCE**2,
            **{threshold_name(threshold): 0.0 for threshold in thresholds},
            "normal_consistency": 0.0,
        }
    if normalise == "separately":
        prediction, reference = prediction.normalised, reference.normalised
    # workers=1: the benchmark shares the machine with the network that it times.
    forward, to_reference = reference.tree.query(prediction.points, workers=1)
    backward, to_prediction = prediction.tree.query(reference.points, workers=1)
    cosines = (
        np.abs((prediction.normals * reference.normals[to_reference]).sum(1)).mean(),
        np.abs((reference.normals * prediction.normals[to_prediction]).sum(1)).mean(),
    )
    result = {
        "cd": float(forward.mean() + backward.mean()) / 2,
        "cd_squared": float((forward**2).mean() + (backward**2).mean()) / 2,
    }
    for threshold in thresholds:
        precision, recall = float((forward < threshold).mean()), float((backward < threshold).mean())
        result[threshold_name(threshold)] = 100 * f_score(precision, recall)
    result["normal_consistency"] = float(sum(cosines)) / 2
    return result


def surface_occupancy(points: np.ndarray, resolution: int = 64) -> np.ndarray:
    """Cells of a resolution^3 grid over [-1, 1]^3 that hold at least one of the points."""
    occupied = np.zeros((resolution,) * 3, dtype=bool)
    points = points[(np.abs(points) <= 1).all(1)]
    # A point on the upper face of the cube belongs to the last cell.
    index = np.minimum((points + 1) * (resolution / 2), resolution - 1).astype(np.int64)
    occupied[tuple(index.T)] = True
    return occupied


def intersection_over_union(a: np.ndarray, b: np.ndarray) -> float:
    """IoU of two boolean grids; two empty grids are equal, hence 1."""
    union = int(np.logical_or(a, b).sum())
    return 1.0 if union == 0 else int(np.logical_and(a, b).sum()) / union


def surface_viou(prediction: Surface, reference: Surface, resolution: int = 64) -> float:
    """IoU of the 64^3 occupancies of two separately normalised point sets: the published definition of vIoU.

    It compares shells one cell thick, so it is far lower than the IoU of solids for shapes that look equal,
    and it depends on the number of points.
    """
    if prediction.empty or reference.empty:
        return float(prediction.empty and reference.empty)
    return intersection_over_union(
        surface_occupancy(prediction.normalised.points, resolution),
        surface_occupancy(reference.normalised.points, resolution),
    )
