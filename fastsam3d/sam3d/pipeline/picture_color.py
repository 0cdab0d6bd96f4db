"""Colours of an object brought closer to those that its picture shows.

The small model divides an object into parts well, and knows their colours badly: it has seen few pictures. The picture
shows the colours, but not how the object is divided, nor its far side. An affine map of colours, fitted where the
object is seen, takes the parts from the one and the colours from the other.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

SIDE = 32
"""The picture is reduced to this side first: about one pixel a voxel of the small model."""
SPREAD = 1.0
"""Standard deviation, in those pixels, of the weights around the place where a voxel projects to."""
NEAREST = 0.1
"""Smallest depth of a voxel relative to that of the object: what a wrong pose puts behind the camera stays finite."""
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


def colors_shown(
    coords: Tensor,
    resolution: int,
    rotation: Tensor,
    translation: Tensor,
    scale: Tensor,
    image: Tensor,
    mask: Tensor,
) -> Shown:
    """Colours of the picture at the voxels of one object.

    Voxels are projected through a pinhole camera, whose focal length and centre need not be known: the box around the
    projected voxels is laid over the box around the mask, which also takes out most of an error in the pose's place and
    size. Each voxel then gets a mean of the mask's pixels with Gaussian weights about its place; one that
    falls beside the mask gets the nearest ones.

    Args:
        coords: voxels `[N, 4]` (batch, x, y, z) of a grid of `resolution` voxels a side.
        resolution: see above.
        rotation: `[3, 3]`, of row vectors: `p_camera = (p_object * scale) @ rotation + translation`.
        translation: `[3]`, camera frame (x left, y up, z forward).
        scale: `[3]`, camera units per object unit.
        image: crop around the object `[3, S, S]` in 0..1.
        mask: `[1, S, S]`, 0..1, not empty.
    """
    points = ((coords[:, 1:].float() + 0.5) / resolution - 0.5) * scale
    camera = points @ rotation + translation
    depth = camera[:, 2].maximum(NEAREST * translation[2].abs().clamp_min(1e-6))
    places = -camera[:, :2] / depth[:, None]  # x grows to the right, y downwards
    weight = F.adaptive_avg_pool2d(mask, SIDE)
    reduced = F.adaptive_avg_pool2d(image * mask, SIDE) / weight.clamp_min(1e-6)
    rows, columns = (weight[0] >= weight.max() / 2).nonzero(as_tuple=True)
    pixels = torch.stack([columns, rows], dim=1).float()
    first, last = pixels.amin(dim=0) - 0.5, pixels.amax(dim=0) + 0.5
    low, high = places.amin(dim=0), places.amax(dim=0)
    places = first + (places - low) / (high - low).clamp_min(1e-6) * (last - first)
    distance = (places[:, None] - pixels).square().sum(dim=2)
    weights = torch.softmax(distance / (-2 * SPREAD**2), dim=1)
    cell = places.round().long().clamp(0, SIDE - 1) @ places.new_tensor([1, SIDE]).long()
    front = torch.full((SIDE**2,), torch.inf, device=depth.device).scatter_reduce(0, cell, depth, "amin")
    seen = depth <= front[cell] + HIDDEN * scale.mean() / resolution
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
