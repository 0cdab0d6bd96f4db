"""Activated values of Gaussians of any class, as plain tensors."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fastsam3d.errors import UserError
from fastsam3d.meshes.gaussians import SPHERICAL_HARMONIC_0
from fastsam3d.meshes.rotations import quaternion_to_matrix

THINNEST = 1e-3
"""Smallest standard deviation that is kept, as a share of the same Gaussian's largest: thinner ones lose precision."""
REACH = 3.0
"""Standard deviations within which a Gaussian is seen, as in the usual rasterisers."""


@dataclass(frozen=True)
class Splats:
    """Gaussians in one frame (z up).

    Attributes:
        centers: fp32 `[G, 3]`.
        axes: fp32 `[G, 3, 3]`; rows are the unit axes.
        deviations: fp32 `[G, 3]`, standard deviations along the axes.
        opacities: fp32 `[G]`, 0..1.
        colors: fp32 `[G, 3]`, 0..1, sRGB, the same from every direction.
    """

    centers: Tensor
    axes: Tensor
    deviations: Tensor
    opacities: Tensor
    colors: Tensor

    def __len__(self) -> int:
        return len(self.centers)

    @property
    def whitening(self) -> Tensor:
        """Returns matrices `[G, 3, 3]` that turn an offset from the centre into standard deviations along the axes."""
        largest = self.deviations.amax(dim=1, keepdim=True)
        return self.axes / torch.maximum(self.deviations, THINNEST * largest).clamp(min=1e-12)[:, :, None]

    def select(self, rows: Tensor) -> Splats:
        """Selects some of the Gaussians, by index or mask."""
        return Splats(*(getattr(self, field.name)[rows] for field in fields(self)))

    def to(self, device: torch.device | str) -> Splats:
        """Moves the Gaussians to another device."""
        return Splats(*(getattr(self, field.name).to(device) for field in fields(self)))


def splats_of(gaussian: Any) -> Splats:
    """Reads Gaussians of this package, of SAM 3D Objects or of TRELLIS.

    All of them have `get_xyz`, `get_scaling`, `get_rotation` (w, x, y, z) and `get_opacity`. The colour is the constant
    part of the spherical harmonics; the classes named have no other. Gaussians with a value that is not finite are left
    out, because one of them would spoil every picture.

    Raises:
        TypeError: the object does not have the attributes of such a class.
    """
    if isinstance(gaussian, Splats):
        return gaussian
    names = ("get_xyz", "get_scaling", "get_rotation", "get_opacity")
    missing = [name for name in names if not hasattr(gaussian, name)]
    features = getattr(gaussian, "features_dc", getattr(gaussian, "_features_dc", None))
    if missing or features is None:
        lacking = missing[0] if missing else "features_dc"
        raise TypeError(f"a {type(gaussian).__name__} is no set of Gaussians: it has no {lacking}")
    xyz, scaling, rotation, opacity = (getattr(gaussian, name).detach().float() for name in names)
    opacity = opacity.reshape(-1, 1)
    colors = (0.5 + SPHERICAL_HARMONIC_0 * features.detach().float().reshape(len(xyz), -1)[:, :3]).clamp(0, 1)
    axes = quaternion_to_matrix(F.normalize(rotation, dim=1)).transpose(1, 2)
    splats = Splats(xyz, axes.contiguous(), scaling, opacity.reshape(-1), colors)
    known = torch.stack([torch.isfinite(each.flatten(1)).all(dim=1) for each in (xyz, axes, scaling, opacity, colors)])
    known = known.all(dim=0)
    return splats if bool(known.all()) else splats.select(known)


def splats_to_write(gaussian: Any) -> Splats:
    """Reads Gaussians as `splats_of` does, on the CPU, for a file.

    Raises:
        UserError: there is none with finite values.
    """
    splats = splats_of(gaussian).to("cpu")
    if not len(splats):
        raise UserError("There are no Gaussians with finite values to write. Run it again with another seed.")
    return splats
