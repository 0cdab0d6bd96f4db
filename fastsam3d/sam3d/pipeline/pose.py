"""Layout of an object in the camera frame: rotations, the pose decoder and its inverse.

docs/facts.md, section S9. Points are row vectors: `p_camera = (p_object * s) @ R + t`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fastsam3d.errors import UserError
from fastsam3d.meshes.rotations import matrix_to_quaternion, quaternion_to_matrix
from fastsam3d.sam3d.coloring.camera import RigidPose
from fastsam3d.sam3d.models.config import PoseConfig


def rotation_6d_to_matrix(rotation: Tensor) -> Tensor:
    """Orthonormalises two columns and adds the third (Zhou et al., 2019). `[..., 6] -> [..., 3, 3]`."""
    first, second = rotation[..., :3], rotation[..., 3:]
    b1 = F.normalize(first, dim=-1)
    b2 = F.normalize(second - (b1 * second).sum(dim=-1, keepdim=True) * b1, dim=-1)
    return torch.stack([b1, b2, torch.linalg.cross(b1, b2)], dim=-1)


@dataclass(frozen=True)
class Pose:
    """Pose of an object in the camera frame (x left, y up, z forward).

    Attributes:
        rotation: unit quaternion (w, x, y, z), `[4]`.
        translation: `[3]`, in the units of the point map (of the plane's depth where there was none).
        scale: `[3]`, camera units per object unit.
    """

    rotation: Tensor
    translation: Tensor
    scale: Tensor

    def apply(self, points: Tensor) -> Tensor:
        """Maps object points `[..., 3]` to the camera frame."""
        return (points * self.scale) @ quaternion_to_matrix(self.rotation) + self.translation

    def invert(self, points: Tensor) -> Tensor:
        """Maps camera points `[..., 3]` to the object frame."""
        return ((points - self.translation) @ quaternion_to_matrix(self.rotation).mT) / self.scale

    def to_rigid(self) -> RigidPose:
        """Returns the same pose with a rotation matrix, as NumPy arrays."""
        parts = quaternion_to_matrix(self.rotation), self.translation, self.scale
        return RigidPose(*(part.cpu().numpy() for part in parts))

    def to_dict(self) -> dict[str, list[float]]:
        """Returns plain lists, for JSON."""
        return {
            "rotation_wxyz": self.rotation.tolist(),
            "translation": self.translation.tolist(),
            "scale": self.scale.tolist(),
        }


class NoPose(Pose):
    """Replaces the pose of an object that was reconstructed without its layout: reading it raises `UserError`."""

    def __init__(self) -> None:
        pass

    def __getattribute__(self, name: str) -> Any:
        if name in ("rotation", "translation", "scale"):
            raise UserError("This object was reconstructed with layout=False and has no pose. Run with layout=True.")
        return super().__getattribute__(name)

    def __repr__(self) -> str:
        return "NoPose()"


def decode_pose(latents: Mapping[str, Tensor], scene_scale: Tensor, scene_shift: Tensor, config: PoseConfig) -> Pose:
    """Decodes layout latents to a pose (the decoder `ScaleShiftInvariant`); `translation_scale` is not used.

    Args:
        latents: `6drotation_normalized` `[1, 1, 6]`, `translation` and `scale` `[1, 1, 3]`.
        scene_scale, scene_shift: `[1, 3]`, the moments that normalised the point map.
        config: affine maps from latents to layout values.
    """
    rotation, translation, scale = (
        latents[name].reshape(-1).float().cpu() for name in ("6drotation_normalized", "translation", "scale")
    )
    scene_scale, scene_shift = scene_scale.reshape(3).float().cpu(), scene_shift.reshape(3).float().cpu()
    rotation = rotation * torch.tensor(config.rotation_std) + torch.tensor(config.rotation_mean)
    translation = translation * torch.tensor(config.translation_std) + torch.tensor(config.translation_mean)
    scale = (scale * config.scale_std + config.scale_mean).exp().mean().expand(3)
    return Pose(
        rotation=matrix_to_quaternion(rotation_6d_to_matrix(rotation)),
        translation=translation * scene_scale + scene_shift,
        scale=scale * scene_scale,
    )
