"""Reads 3DGS PLY files of any program as Gaussians."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from fastsam3d.basics.paths import require_file, user_path
from fastsam3d.errors import UserError
from fastsam3d.meshes.gaussians import SPHERICAL_HARMONIC_0
from fastsam3d.meshes.rotations import quaternion_to_matrix
from fastsam3d.meshes.splats.splats import Splats

_GROUPS = {
    "centers": ("x", "y", "z"),
    "colors": ("f_dc_0", "f_dc_1", "f_dc_2"),
    "opacities": ("opacity",),
    "scales": ("scale_0", "scale_1", "scale_2"),
    "rotations": ("rot_0", "rot_1", "rot_2", "rot_3"),
}


def holds_splats(path: Path) -> bool:
    """Tells whether a PLY file that can be read holds Gaussians, by the names of its values."""
    from fastsam3d.meshes.parsing.ply import read_vertex_columns

    return {name for group in _GROUPS.values() for name in group} <= read_vertex_columns(path).keys()


def read_splats(path: str | Path) -> Splats:
    """Reads the Gaussians of a 3DGS PLY file (logarithmic scales, opacity logits, w x y z), taken to be z up.

    Of spherical harmonics the constant part is read. Gaussians with a value that is not finite are left out.

    Raises:
        UserError: the file is missing or unreadable, or holds no Gaussians.
    """
    from fastsam3d.meshes.parsing.ply import read_vertex_columns

    path = user_path(path)
    require_file(path, f"the file {path}")
    try:
        columns = read_vertex_columns(path)
    except Exception as error:  # readers raise exceptions of every kind on a damaged file
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise UserError(f"{path} cannot be read: {reason}. Write it again.") from None
    missing = [name for group in _GROUPS.values() for name in group if name not in columns]
    if missing:
        raise UserError(f"{path} holds no Gaussians: its points have no {missing[0]}. Give a 3DGS PLY file.")
    values = {
        group: torch.from_numpy(np.stack([columns[name] for name in names], axis=1).astype(np.float32))
        for group, names in _GROUPS.items()
    }
    known = torch.stack([torch.isfinite(each).all(dim=1) for each in values.values()]).all(dim=0)
    if not known.any():
        raise UserError(f"{path} holds no Gaussians with finite values. Write it again.")
    values = {group: each[known] for group, each in values.items()}
    return Splats(
        values["centers"],
        quaternion_to_matrix(F.normalize(values["rotations"], dim=1)).transpose(1, 2).contiguous(),
        values["scales"].clamp(-30, 30).exp(),
        torch.sigmoid(values["opacities"][:, 0]),
        (0.5 + SPHERICAL_HARMONIC_0 * values["colors"]).clamp(0, 1),
    )
