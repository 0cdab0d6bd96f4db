"""Gaussians that lie just under the surface of a procedural object: what the Gaussian decoder is trained to give.

Every Gaussian of a voxel has a place of its own there, from which its centre may move a little (docs/facts.md, section
S8.1). The target moves it from that place straight to the surface, and then inward: a disc that lay on the surface
would stick out of the object at its edges. Where the target is out of its reach, it is an invisible Gaussian.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor
from torch.nn import functional as F

from fastsam3d.meshes.gaussians import SPHERICAL_HARMONIC_0, Gaussian
from fastsam3d.meshes.rotations import quaternion_to_matrix
from fastsam3d.procedural.objects import ProceduralObject
from fastsam3d.sam3d.models.structured_latent_decoder import GaussianDecoder
from fastsam3d.training.structured_latent.data import Placement

NEIGHBOURS = 8
"""Gaussians that the area which one of them covers is measured by."""
SPREAD = 0.65
"""Standard deviation along the surface, in sides of the square that a Gaussian covers."""
THICKNESS = 0.0013
"""Standard deviation across the surface, object units: hardly above the smallest that the class has."""
INWARD = 2.25
"""How far under the surface a Gaussian lies, in its own standard deviations along the surface."""
SEEN, UNSEEN = 0.97, 0.01
"""Opacities of Gaussians on the surface and out of reach of it."""
ON_SURFACE = 0.1
"""A Gaussian lies on the surface if its distance is less than this, in voxels."""
WEIGHTS = {"place": 1.0, "scale": 0.15, "normal": 0.5, "color": 1.0, "opacity": 0.3}


@dataclass(frozen=True)
class GaussianTarget:
    """Gaussians under the surface, those of one voxel after the other.

    Attributes:
        centers: in the unit cube `[G, 3]`, about 0..1.
        normals: of the surface above, unit `[G, 3]`.
        colors: of the surface above `[G, 3]`, 0..1.
        spread: standard deviation along the surface `[G]`, object units.
        seen: which of them reach their place, bool `[G]`; the other values mean nothing where it is false.
    """

    centers: Tensor
    normals: Tensor
    colors: Tensor
    spread: Tensor
    seen: Tensor

    def to(self, device: torch.device) -> GaussianTarget:
        """The same on another device."""
        return GaussianTarget(*(getattr(self, field.name).to(device) for field in fields(self)))


def start_places(voxels: Tensor, decoder: GaussianDecoder) -> tuple[Tensor, Tensor, float]:
    """The places from which the Gaussians of voxels `[N, 3]` may move.

    Returns:
        (centres of the voxels, repeated for each Gaussian `[G, 3]`; the places `[G, 3]`; how far from the centre a
        Gaussian can come, along each axis), all in the unit cube.
    """
    reach = 0.5 * decoder.VOXEL_SIZE / decoder.resolution
    inside = torch.tanh(decoder.offset_perturbation.cpu()) * reach
    centres = ((voxels.float() + 0.5) / decoder.resolution)[:, None].expand(-1, len(inside), -1)
    return centres.reshape(-1, 3), (centres + inside).reshape(-1, 3), reach


@torch.no_grad()
def gaussian_target(
    item: ProceduralObject, placement: Placement, voxels: Tensor, decoder: GaussianDecoder
) -> GaussianTarget:
    """The Gaussians of an object's voxels `[N, 3]`.

    Two steps along the gradient of the distance lead to the surface, and one along the normal under it. Near an edge,
    and in a thin part, that point is too near to another face. Half of what is missing is then gone along the gradient
    there: away from the other face, and in a thin part back to its middle.
    """

    def distance(points: Tensor) -> Tensor:
        return item.sdf(placement.into_object(points)) * placement.scale

    def gradient(points: Tensor, here: Tensor) -> Tensor:
        return F.normalize(torch.stack([distance(points + step) - here for step in steps], dim=1), dim=1)

    centres, places, reach = start_places(voxels, decoder)
    points = places - 0.5
    steps = 0.05 / decoder.resolution * torch.eye(3)
    normals = torch.zeros_like(points)
    for _ in range(2):
        here = distance(points)
        normals = gradient(points, here)
        points = points - here[:, None] * normals
    near = distance(points).abs() * decoder.resolution < ON_SURFACE
    seen = near & ((points + 0.5 - centres).abs().amax(dim=1) < 0.97 * reach)
    spread = torch.full((len(points),), 0.5 / decoder.resolution)
    if int(seen.sum()) > NEIGHBOURS:
        on_surface = points[seen].numpy()
        radius = cKDTree(on_surface).query(on_surface, k=NEIGHBOURS + 1)[0][:, -1]
        side = np.sqrt(np.pi / NEIGHBOURS) * radius
        spread[seen] = torch.from_numpy(SPREAD * side).float().clamp(2 * THICKNESS, 0.5 / decoder.resolution)
    colors = item.color(placement.into_object(points))
    depth = INWARD * spread
    under = points - depth[:, None] * normals
    here = distance(under)
    under = under - 0.5 * (depth + here).clamp(min=0.0)[:, None] * gradient(under, here)
    seen = seen & ((under + 0.5 - centres).abs().amax(dim=1) < 0.97 * reach)
    return GaussianTarget(under + 0.5, normals, colors, spread, seen)


def gaussian_losses(gaussian: Gaussian, target: GaussianTarget, resolution: int) -> dict[str, Tensor]:
    """Losses of decoded Gaussians.

    Returns:
        `place` (mean distance along an axis, in voxels), `scale` (of logarithms), `normal` (squared sine of the angle
        between the thin axis and the normal), `color` (mean difference of a channel), all of the Gaussians that are
        to be seen; `opacity` (cross-entropy, of all).
    """
    seen = target.seen
    place = resolution * (gaussian.xyz - target.centers).abs().mean(dim=1)
    wanted = torch.stack([target.spread, target.spread, torch.full_like(target.spread, THICKNESS)], dim=1)
    scale = (gaussian.get_scaling.log() - wanted.log()).abs().mean(dim=1)
    axis = quaternion_to_matrix(gaussian.raw_rotation)[:, :, 2]
    normal = 1 - (axis * target.normals).sum(dim=1).square()
    # Not clamped, as `colors` is: a colour beyond the range must be able to come back.
    raw = 0.5 + SPHERICAL_HARMONIC_0 * gaussian.features_dc[:, 0]
    color = (raw - target.colors).abs().mean(dim=1)
    opacity = torch.where(seen, SEEN, UNSEEN)
    parts = {"place": place, "scale": scale, "normal": normal, "color": color}
    losses = {name: value[seen].mean() if seen.any() else value.sum() * 0 for name, value in parts.items()}
    losses["opacity"] = F.binary_cross_entropy_with_logits(gaussian.opacity_logit[:, 0], opacity)
    return losses
