"""Results of a run: voxels, surface, pose and seconds by stage."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fastsam3d.meshes.mesh import Mesh
from fastsam3d.sam3d.coloring.surface import PictureProjection
from fastsam3d.sam3d.pipeline.pose import NoPose, Pose


@dataclass(frozen=True)
class SparseStructure:
    """Result of the first stage.

    Attributes:
        latents: sampled latents by name, fp32, `[1, T, C]` each; `shape` and the four layout latents.
        logits: occupancy logits `[1, 1, R, R, R]`, occupied above 0.
        coords: int32 `[N, 4]` (batch, x, y, z), the voxels that the second stage works on.
        interior_coords: int32 `[M, 4]`, occupied voxels that were dropped and are known to lie inside.
        downsample_factor: 2 where there were too many voxels and the grid was halved, else 1. The pose's
            scale is multiplied by it.
    """

    latents: dict[str, Tensor]
    logits: Tensor
    coords: Tensor
    interior_coords: Tensor
    downsample_factor: int = 1


@dataclass(frozen=True)
class SampledStructure:
    """The first stage of one object, run before the rest.

    Attributes:
        structure: its result.
        generator: of the object's random numbers, as the first stage left it.
        stage_seconds: this object's share of the wall-clock seconds by stage.
    """

    structure: SparseStructure
    generator: torch.Generator
    stage_seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, repr=False)
class Reconstruction:
    """One object.

    Attributes:
        mesh: the surface in the object frame; None unless `"mesh"` was asked for.
        gaussian: the Gaussians in the object frame; None unless `"gaussian"` was asked for.
        pose: from the object frame to the camera frame; a `NoPose`, which says so, after `run(..., layout=False)`.
        structure: the voxels of the first stage.
        feats: latents of the second stage, `[N, 8]`, de-normalised, at `structure.coords`. An acceleration that merges
            or drops voxels samples fewer: then the rows belong to voxels of its own.
        seed: the seed of the noise.
        stage_seconds: wall-clock seconds by stage, in the order in which the stages ran.
        projection: the picture as a source of colours for the side that it shows; None where none was taken from it.
    """

    mesh: Mesh | None
    pose: Pose
    structure: SparseStructure
    feats: Tensor
    seed: int
    gaussian: Any = None
    stage_seconds: dict[str, float] = field(default_factory=dict)
    projection: PictureProjection | None = None

    def __repr__(self) -> str:
        # Not the hundreds of lines of arrays that a dataclass shows at the end of a notebook's cell.
        parts = [f"{len(self.structure.coords):,} voxels", f"seed {self.seed}", f"{self.seconds:.2f} s"]
        if self.mesh is not None:
            parts.insert(0, f"{len(self.mesh.faces):,} faces")
        if self.gaussian is not None:
            parts.insert(0, f"{len(self.gaussian):,} Gaussians")
        return f"<Reconstruction: {', '.join(parts)}>"

    @property
    def has_layout(self) -> bool:
        """Tells whether the pose was computed."""
        return not isinstance(self.pose, NoPose)

    @property
    def seconds(self) -> float:
        """Returns the wall-clock seconds of all stages together."""
        return sum(self.stage_seconds.values())
