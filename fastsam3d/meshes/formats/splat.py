"""Gaussians as `.splat` files: 32 bytes each, the layout of the first viewers in browsers; z up.

Layout, little-endian, after the converter of https://github.com/antimatter15/splat (MIT): centre (3 float32), standard
deviations (3 float32), colour and opacity (4 uint8), quaternion w x y z (4 uint8, `128 q + 128`). Large and opaque
Gaussians come first, so that a viewer that has read a part of a file shows most of the object.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastsam3d.meshes.formats.registry import Z_UP, MeshFormat, register_format

if TYPE_CHECKING:
    from fastsam3d.meshes.gaussians import Gaussian


def encode_splat(gaussian: Gaussian) -> bytes:
    """Encodes Gaussians as a `.splat` file, in the object frame (z up).

    Raises:
        UserError: there is no Gaussian with finite values.
    """
    import numpy as np

    from fastsam3d.meshes.rotations import matrix_to_quaternion
    from fastsam3d.meshes.splats.splats import splats_to_write

    splats = splats_to_write(gaussian)
    # Columns of a rotation are the axes; rows of `axes` are.
    quaternions = matrix_to_quaternion(splats.axes.double().transpose(1, 2).contiguous()).numpy()
    deviations, opacities = splats.deviations.numpy(), splats.opacities.numpy()
    record = np.empty(
        len(splats), dtype=[("centre", "<f4", 3), ("deviations", "<f4", 3), ("rgba", "u1", 4), ("turn", "u1", 4)]
    )
    record["centre"], record["deviations"] = splats.centers.numpy(), deviations
    rgba = np.concatenate([splats.colors.numpy(), opacities[:, None]], axis=1)
    record["rgba"] = np.rint(rgba.clip(0, 1) * 255)
    record["turn"] = np.rint(quaternions * 128 + 128).clip(0, 255)
    order = np.argsort(-deviations.astype(np.float64).prod(axis=1) * opacities, kind="stable")
    return record[order].tobytes()


register_format(MeshFormat(".splat", Z_UP, "sRGB, 8 bits", encode_gaussians=encode_splat))
