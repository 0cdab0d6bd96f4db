"""STL (binary): faces without colours, for printing; z up."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fastsam3d.meshes.formats.registry import Z_UP, MeshFormat, register_format
from fastsam3d.meshes.geometry import face_cross_products
from fastsam3d.meshes.mesh import Mesh
from fastsam3d.meshes.trimesh_reading import read_with_trimesh


def encode_stl(mesh: Mesh, name: str = "object") -> bytes:
    """Encodes a mesh as a binary STL file in the object frame (z up); `name` is not stored."""
    del name
    normals = face_cross_products(mesh.vertices, mesh.faces)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-20)
    record = np.zeros(len(mesh.faces), dtype=[("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
    record["normal"], record["corners"] = normals, mesh.vertices[mesh.faces]
    header = b"fastsam3d: z up".ljust(80, b" ")
    return header + np.uint32(len(mesh.faces)).astype("<u4").tobytes() + record.tobytes()


def read_stl(path: Path) -> list[tuple[str, Mesh]]:
    """Reads an STL file, which is taken to be z up."""
    return read_with_trimesh(path)


register_format(MeshFormat(".stl", Z_UP, "none", encode_mesh=encode_stl, read=read_stl))
