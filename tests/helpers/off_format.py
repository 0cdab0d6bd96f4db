"""The Object File Format (.off) as a module outside the package adds it: one file, one registration.

An OFF file is text: the word OFF, the numbers of vertices, faces and edges, then the vertices, then the faces with the
number of their corners first.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fastsam3d.meshes.formats import Z_UP, MeshFormat, register_format
from fastsam3d.meshes.mesh import Mesh


def encode_off(mesh: Mesh, name: str) -> bytes:
    """Encodes the faces of a mesh, z up."""
    lines = ["OFF", f"# {name}", f"{len(mesh.vertices)} {len(mesh.faces)} 0"]
    lines += [f"{x:.6f} {y:.6f} {z:.6f}" for x, y, z in mesh.vertices.tolist()]
    lines += [f"3 {a} {b} {c}" for a, b, c in mesh.faces.tolist()]
    return ("\n".join(lines) + "\n").encode()


def read_off(path: Path) -> list[tuple[str, Mesh]]:
    """Reads a file of triangles, all grey."""
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    if lines[0] != "OFF":
        raise ValueError("it does not start with OFF")
    vertices, faces = (int(word) for word in lines[1].split()[:2])
    table = np.array([line.split() for line in lines[2 : 2 + vertices]], dtype=np.float32)
    corners = np.array([line.split()[1:] for line in lines[2 + vertices : 2 + vertices + faces]], dtype=np.int64)
    return [(path.stem, Mesh(table, corners, np.full_like(table, 0.5)))]


register_format(MeshFormat(".off", Z_UP, "none", encode_mesh=encode_off, read=read_off))
