"""GLB (binary glTF 2.0): faces, smooth normals, colours at the vertices or in a texture; y up."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fastsam3d.meshes.formats.registry import Y_UP, MeshFormat, register_format
from fastsam3d.meshes.gltf import Node, glb_bytes
from fastsam3d.meshes.mesh import Mesh


def encode_glb(mesh: Mesh, name: str = "object") -> bytes:
    """Encodes one mesh as a `.glb` file, y up, as a node called `name`."""
    return glb_bytes([Node(name, mesh)])


def read_glb_file(path: Path) -> list[tuple[str, Mesh]]:
    """Reads (node name, mesh) of everything in the file, see `gltf_reading.read_glb`."""
    from fastsam3d.meshes.gltf_reading import read_glb

    return read_glb(path.read_bytes())


def read_scene_up(data: bytes) -> np.ndarray | None:
    """Reads the direction of up that our scenes store, see `gltf_reading.up_of`."""
    from fastsam3d.meshes.gltf_reading import up_of

    return up_of(data)


register_format(
    MeshFormat(
        ".glb",
        Y_UP,
        "linear light (glTF); a texture is sRGB",
        encode_mesh=encode_glb,
        read=read_glb_file,
        read_up=read_scene_up,
    )
)
