"""One reconstruction prepared for comparison: with the truth, and with another run of the same object."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from fastsam3d.evaluation.metrics.latents import VoxelLatents, latent_error, latents_of
from fastsam3d.evaluation.metrics.pose_metrics import apply_pose, box_iou_3d, compare_poses, layout_distance
from fastsam3d.evaluation.metrics.surfaces import (
    SURFACE_POINTS,
    Surface,
    compare_surfaces,
    intersection_over_union,
    sample_surface,
    surface_viou,
)
from fastsam3d.evaluation.metrics.true_shape import Reference
from fastsam3d.evaluation.metrics.visual import Renders, compare_renders, render_views
from fastsam3d.evaluation.metrics.voxelize import voxelize_mesh


@dataclass(frozen=True)
class Outcome:
    """Surface points and solid voxels (object frame), the pose, the mesh and the latents of one reconstruction."""

    surface: Surface
    solid: np.ndarray
    pose: Any
    mesh: Any = None
    latents: VoxelLatents | None = None

    @cached_property
    def renders(self) -> Renders:
        """The views of its mesh, drawn when first asked for."""
        mesh = self.mesh
        return render_views(mesh.vertices, mesh.faces, getattr(mesh, "vertex_colors", None))

    @cached_property
    def framed(self) -> Surface:
        """The surface with its cube as [-1, 1], for comparison with another run."""
        return self.surface.scaled(2)


def outcome_of(reconstruction: Any, seed: int, points: int = SURFACE_POINTS) -> Outcome:
    """Samples and voxelises the mesh of a reconstruction; `seed`, the object's, makes the points repeatable."""
    mesh = reconstruction.mesh
    surface = sample_surface(mesh.vertices, mesh.faces, points, np.random.default_rng(seed))
    solid, latents = voxelize_mesh(mesh.vertices, mesh.faces), latents_of(reconstruction)
    return Outcome(surface, solid, reconstruction.pose, mesh, latents)


def against_truth(outcome: Outcome, reference: Reference, pose: Any = None, *, visual: bool = True) -> dict[str, float]:
    """Shape metrics against the true object and, given its true pose, layout metrics.

    "viou" compares solids in the object frame without any normalisation; "surface_viou" and the surface
    distances follow the published protocol (`fastsam3d.evaluation.metrics.surfaces`); "iou_3d" compares the
    axis-aligned boxes of the posed surface points in the camera frame; "ssim", "psnr" and "mask_iou", where the
    reference has colours and `visual` is true, are those of `fastsam3d.evaluation.metrics.visual`.
    """
    result = compare_surfaces(outcome.surface, reference.surface)
    result["viou"] = intersection_over_union(outcome.solid, reference.solid)
    result["surface_viou"] = surface_viou(outcome.surface, reference.surface)
    if visual and reference.renders is not None:
        result.update(compare_renders(outcome.renders, reference.renders))
    if pose is not None:
        posed, true = (
            apply_pose(outcome.surface.points, outcome.pose),
            apply_pose(reference.surface.points, pose),
        )
        result["iou_3d"] = box_iou_3d(posed, true)
        result.update(compare_poses(outcome.pose, pose, reference.symmetry))
    return result


def against_outcome(outcome: Outcome, baseline: Outcome, *, visual: bool = True) -> dict[str, float]:
    """Fidelity to another run of the same object: 1, 100 and 0 where nothing changed.

    "fidelity_viou": IoU of the solids; "fidelity_f1_005": F-score at 0.05, percent, in the object's own frame
    with its cube as [-1, 1]; "fidelity_ssim", where `visual` is true: of the renders; "layout_distance":
    `fastsam3d.evaluation.metrics.pose_metrics.layout_distance`.
    """
    if outcome.surface.empty and baseline.surface.empty:
        f1 = 100.0
    else:
        # No normalisation of its own for each: a shape that grew or moved in its frame has changed.
        f1 = compare_surfaces(outcome.framed, baseline.framed, normalise="none")["f1_005"]
    result = {
        "fidelity_viou": intersection_over_union(outcome.solid, baseline.solid),
        "fidelity_f1_005": f1,
        "layout_distance": _moved(outcome, baseline),
    }
    if visual:
        result["fidelity_ssim"] = compare_renders(outcome.renders, baseline.renders)["ssim"]
    return result


def against_limit(outcome: Outcome, limit: Outcome) -> dict[str, float]:
    """Distance to the converged solution of the same object and noise (`fastsam3d.evaluation.measuring.limit`).

    "limit_viou": IoU of the solids; "limit_layout_distance": as "layout_distance"; "limit_latent_error": relative L2
    error of the latents at the voxels that both have.
    """
    return {
        "limit_viou": intersection_over_union(outcome.solid, limit.solid),
        "limit_layout_distance": _moved(outcome, limit),
        "limit_latent_error": latent_error(outcome.latents, limit.latents),
    }


def _moved(outcome: Outcome, reference: Outcome) -> float:
    low, high = reference.surface.low, reference.surface.high
    if reference.surface.empty:
        low, high = np.full(3, -0.5), np.full(3, 0.5)
    return layout_distance(outcome.pose, reference.pose, low, high)
