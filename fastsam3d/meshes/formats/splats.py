"""Gaussians in binary glTF (KHR_gaussian_splatting), `NAME_splats.glb`; y up. Other programs show coloured points."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastsam3d.meshes.formats.registry import Y_UP, MeshFormat, register_format

if TYPE_CHECKING:
    from fastsam3d.meshes.gaussians import Gaussian


def encode_splats(gaussian: Gaussian) -> bytes:
    """Encodes Gaussians as a `.glb` file, see `splats.gltf.splats_glb`."""
    from fastsam3d.meshes.splats.gltf import splats_glb

    return splats_glb(gaussian)


register_format(
    MeshFormat(
        ".splats",
        Y_UP,
        "spherical harmonics of sRGB; of points, linear light",
        encode_gaussians=encode_splats,
        file_ending="_splats.glb",
    )
)
