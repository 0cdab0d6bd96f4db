"""Holds Gaussians with the decoder's parameters, and computes their activated values and 3DGS PLY fields.

docs/facts.md, section S8.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

SCALING_BIAS = 0.004
OPACITY_BIAS = 0.1
MINIMUM_KERNEL = 0.0009
SPHERICAL_HARMONIC_0 = 0.28209479177387814
"""Value of the constant spherical harmonic: colour = 0.5 + this times `features_dc`."""


def _radical_inverse(index: int, base: int) -> float:
    result, factor = 0.0, 1.0 / base
    while index:
        index, digit = divmod(index, base)
        result += digit * factor
        factor /= base
    return result


def offset_perturbation(count: int, voxel_size: float) -> Tensor:
    """Computes start offsets before tanh `[count, 3]`: a Hammersley set, which fills the voxel evenly.

    The points are (i / count, radical inverse of i in base 2, in base 3), mapped by
    `atanh((2 h - 1) / voxel_size)`.
    """
    points = [[i / count, _radical_inverse(i, 2), _radical_inverse(i, 3)] for i in range(count)]
    return torch.atanh((2 * torch.tensor(points, dtype=torch.float32) - 1) / voxel_size)


@dataclass
class Gaussian:
    """Raw Gaussian parameters, as the decoder emits them.

    Attributes:
        xyz: centres in the unit cube `[G, 3]`, about 0..1.
        features_dc: colour coefficients `[G, 1, 3]`.
        scaling, rotation, opacity: `[G, 3]`, `[G, 4]` (wxyz), `[G, 1]`, before biases and activations.
        mininum_kernel_size: lower bound of standard deviations; spelled as in the official class.
    """

    xyz: Tensor
    features_dc: Tensor
    scaling: Tensor
    rotation: Tensor
    opacity: Tensor
    mininum_kernel_size: float = MINIMUM_KERNEL

    def __len__(self) -> int:
        return len(self.xyz)

    @property
    def get_xyz(self) -> Tensor:
        """Returns the centres in the object frame `[G, 3]`, about -0.5..0.5."""
        return self.xyz - 0.5

    @property
    def get_scaling(self) -> Tensor:
        """Returns the standard deviations along the axes `[G, 3]`, object units."""
        bias = math.log(math.expm1(SCALING_BIAS))
        return torch.sqrt(F.softplus(self.scaling + bias) ** 2 + self.mininum_kernel_size**2)

    @property
    def raw_rotation(self) -> Tensor:
        """Returns the quaternions wxyz before normalisation `[G, 4]`."""
        return self.rotation + self.rotation.new_tensor([1.0, 0.0, 0.0, 0.0])

    @property
    def get_rotation(self) -> Tensor:
        """Returns unit quaternions wxyz `[G, 4]`."""
        return F.normalize(self.raw_rotation, dim=-1)

    @property
    def opacity_logit(self) -> Tensor:
        """Returns the opacity before the sigmoid `[G, 1]`."""
        return self.opacity + math.log(OPACITY_BIAS / (1 - OPACITY_BIAS))

    @property
    def get_opacity(self) -> Tensor:
        """Returns the opacities `[G, 1]`, 0..1."""
        return torch.sigmoid(self.opacity_logit)

    @property
    def colors(self) -> Tensor:
        """Returns the colours `[G, 3]`, 0..1, the same from every direction."""
        return (0.5 + SPHERICAL_HARMONIC_0 * self.features_dc[:, 0]).clamp(0, 1)

    def with_scaling(self, scaling: Tensor) -> Gaussian:
        """Returns a copy with standard deviations `scaling [G, 3]`, object units.

        Values below `mininum_kernel_size` are raised to it.
        """
        bias = math.log(math.expm1(SCALING_BIAS))
        excess = (scaling**2 - self.mininum_kernel_size**2).clamp(min=1e-14).sqrt()
        return replace(self, scaling=torch.log(torch.expm1(excess)) - bias)

    def ply_fields(self) -> dict[str, np.ndarray]:
        """Returns the float32 vertex columns `[G]` of a 3DGS PLY file by name, in the order that viewers expect.

        Normals are zero, opacity is a logit, scales are logarithms, rotations are not normalised.
        """
        groups: list[tuple[tuple[str, ...], Tensor]] = [
            (("x", "y", "z"), self.get_xyz),
            (("nx", "ny", "nz"), torch.zeros_like(self.xyz)),
            (("f_dc_0", "f_dc_1", "f_dc_2"), self.features_dc[:, 0]),
            (("opacity",), self.opacity_logit),
            (("scale_0", "scale_1", "scale_2"), self.get_scaling.log()),
            (("rot_0", "rot_1", "rot_2", "rot_3"), self.raw_rotation),
        ]
        return {
            name: values[:, column].detach().float().cpu().numpy()
            for names, values in groups
            for column, name in enumerate(names)
        }
