"""Ground truth of procedural objects: surface points, solid voxels and views, from their signed distance.

Marching tetrahedra on a 128^3 grid spread the points evenly over the surface; Newton steps along the gradient
of the signed distance then put each point on the true surface, so that edges cut off by the grid are whole
again.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from fastsam3d.evaluation.metrics.signed_distance import distance_of, marching_tetrahedra, project_to_surface
from fastsam3d.evaluation.metrics.surfaces import SURFACE_POINTS, Surface, sample_surface
from fastsam3d.evaluation.metrics.visual import Renders, render_truth
from fastsam3d.evaluation.metrics.voxelize import RESOLUTION, voxel_centres


@dataclass(frozen=True)
class Reference:
    """The true shape of one object in its own frame.

    surface: points on it; solid: [R, R, R] bool, the sign of the distance at the voxel centres; symmetry: as
    the object declares it; family: its family's name; shape: the object itself.
    """

    surface: Surface
    solid: np.ndarray
    symmetry: Any = "none"
    family: str = ""
    shape: Any = None

    @cached_property
    def renders(self) -> Renders | None:
        """Its views, drawn when first asked for; None without colours."""
        return None if self.shape is None else render_truth(self.shape)


def reference_shape(shape: Any, *, points: int = SURFACE_POINTS, resolution: int = RESOLUTION) -> Reference:
    """The reference of an object with `.sdf(points [P, 3]) -> [P]` (tensors) in the cube [-0.5, 0.5]^3.

    Points are the same at every call: they are drawn from a generator seeded with the object's own seed.
    """
    generator = np.random.default_rng(abs(int(getattr(shape, "seed", 0))))
    distance = distance_of(shape)
    vertices, faces = marching_tetrahedra(distance)
    drawn = sample_surface(vertices, faces, points, generator)
    if drawn.empty:
        surface = drawn
    else:
        on_surface, normals = project_to_surface(distance, drawn.points)
        surface = Surface(on_surface, normals, on_surface.min(0), on_surface.max(0))
    solid = distance(voxel_centres(resolution)) < 0
    return Reference(surface, solid, getattr(shape, "symmetry", "none"), getattr(shape, "family", ""), shape)
