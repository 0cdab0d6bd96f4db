"""STL (binary): faces without colours, for printing; z up."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from fastsam3d.meshes.formats.registry import Z_UP, MeshFormat, register_format
from fastsam3d.meshes.geometry import face_cross_products
from fastsam3d.meshes.mesh import Mesh
from fastsam3d.meshes.parsing.polygons import grey, numbers_of


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
    """Reads an STL file, binary or ASCII, which is taken to be z up."""
    data = path.read_bytes()
    count = int.from_bytes(data[80:84], "little") if len(data) >= 84 else -1
    if 0 <= count * 50 == len(data) - 84 or (count > 0 and data.lstrip()[:5].lower() != b"solid"):
        if count * 50 > len(data) - 84:
            raise ValueError("it ends too early")
        layout = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
        corners = np.frombuffer(data, layout, count, 84)["corners"].reshape(-1, 3)
    else:
        found = re.findall(rb"vertex\s+(\S+)\s+(\S+)\s+(\S+)", data, re.IGNORECASE)
        corners = numbers_of(b" ".join(b" ".join(row) for row in found)).reshape(-1, 3)
    vertices = np.array(corners[: len(corners) // 3 * 3], dtype=np.float32)
    return [(path.stem, Mesh(vertices, np.arange(len(vertices), dtype=np.int64).reshape(-1, 3), grey(len(vertices))))]


register_format(MeshFormat(".stl", Z_UP, "none", encode_mesh=encode_stl, read=read_stl))
