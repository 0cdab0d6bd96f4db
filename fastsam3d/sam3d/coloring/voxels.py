"""Colours of an object brought closer to those that its picture shows.

The small model divides an object into parts well, and knows their colours badly: it has seen few pictures. The picture
shows the colours, but not how the object is divided, nor its far side. An affine map of colours, fitted where the
object is seen, takes the parts from the one and the colours from the other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fastsam3d.sam3d.coloring.camera import RigidPose, box_of, fitted_camera

SIDE = 32
"""The picture is reduced to this side first: about one pixel a voxel of the small model."""
SPREAD = 1.0
"""Standard deviation, in those pixels, of the weights around the place where a voxel projects to."""
HIDDEN = 2.0
"""How far behind the nearest voxel of its pixel, in voxels, another one still counts as seen."""
TRUST = 0.002
"""Strength of the pull towards leaving colours as they are, relative to their variance (colours from -1 to 1)."""
TRUST_SHIFT = 0.001
"""The same for a shift of all colours alike, which the picture shows well."""


UNSHADED = 1.5
"""How much brighter a material is than its picture, shaded as it is there. Of 1.0, 1.2, 1.4, 1.6 and 1.8 those about it
gave the smallest errors on 20 held-out objects, at their true voxels and nearly true poses."""


@dataclass(frozen=True)
class Shown:
    """Colours that a picture shows at voxels.

    Attributes:
        colors: `[N, 3]`, -1..1, for the far side too: what lies before it.
        seen: `[N]` bool, whether the voxel itself is seen.
    """

    colors: Tensor
    seen: Tensor


def colors_shown(coords: Tensor, resolution: int, pose: RigidPose, image: Tensor, mask: Tensor) -> Shown:
    """Colours of the picture at the voxels of one object.

    Each voxel gets a mean of the mask's pixels with Gaussian weights about its place. A voxel that falls beside the
    mask gets the colours of the nearest pixels.

    Args:
        coords: voxels `[N, 4]` (batch, x, y, z) of a grid of `resolution` voxels a side.
        resolution: see above.
        pose: of the object.
        image: crop around the object `[3, S, S]` in 0..1.
        mask: `[1, S, S]`, 0..1, not empty.
    """
    points = ((coords[:, 1:].double() + 0.5) / resolution - 0.5).cpu().numpy()
    weight = F.adaptive_avg_pool2d(mask, SIDE)
    reduced = F.adaptive_avg_pool2d(image * mask, SIDE) / weight.clamp_min(1e-6)
    object_pixels = weight[0] >= weight.max() / 2
    camera = fitted_camera(points, pose, box_of(object_pixels.cpu().numpy()))
    place, distance = camera.pixels(points)
    places, depth = (torch.from_numpy(found).to(image) for found in (place, distance))
    rows, columns = object_pixels.nonzero(as_tuple=True)
    centres = torch.stack([columns, rows], dim=1) + 0.5
    squared = (places[:, None] - centres).square().sum(dim=2)
    weights = torch.softmax(squared / (-2 * SPREAD**2), dim=1)
    cell = places.floor().long().clamp(0, SIDE - 1) @ torch.tensor([1, SIDE], device=places.device)
    front = torch.full((SIDE**2,), torch.inf, device=depth.device).scatter_reduce(0, cell, depth, "amin")
    seen = depth <= front[cell] + HIDDEN * float(np.mean(pose.scale)) / resolution
    return Shown(2 * weights @ reduced[:, rows, columns].T - 1, seen)


def unshaded(colors: Tensor) -> Tensor:
    """Colours of the material where a picture shows `colors`: `UNSHADED` times as bright. Both `[..., 3]`, -1..1."""
    return (UNSHADED * (colors + 1) - 1).clamp(-1, 1)


def matched_colors(colors: Tensor, wanted: Tensor, seen: Tensor) -> Tensor:
    """An affine map of all colours that brings those which are seen to the wanted ones.

    Ridge regression of the difference: `min |seen (c + A c + b - w)|^2 + TRUST |A|^2 + TRUST_SHIFT |b|^2`.

    Args:
        colors: `[N, 3]`, -1..1.
        wanted: `[N, 3]`; only rows that are seen count.
        seen: `[N]` bool, at least one.

    Returns:
        `[N, 3]`, within -1..1.
    """
    known = torch.cat([colors, torch.ones_like(colors[:, :1])], dim=1).double()
    some, difference = known[seen], (wanted - colors)[seen].double()
    pull = torch.diag(some.new_tensor([TRUST, TRUST, TRUST, TRUST_SHIFT])) * len(some)
    change = torch.linalg.solve(some.T @ some + pull, some.T @ difference)
    return (colors + (known @ change).to(colors.dtype)).clamp(-1, 1)
