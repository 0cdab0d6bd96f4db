"""OBJ (Wavefront), y up: faces with colours after the coordinates, or with a texture (.mtl, _texture.png)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fastsam3d.meshes.formats.registry import Y_UP, MeshFormat, register_format
from fastsam3d.meshes.geometry import Z_UP_TO_Y_UP
from fastsam3d.meshes.mesh import Mesh, TexturedMesh

TEXTURE_ENDING = "_texture.png"


def encode_obj(mesh: Mesh, name: str = "object") -> bytes:
    """Encodes a mesh as an OBJ file, y up, with the widely read extension of colours after the coordinates.

    The file of a textured mesh refers to `name`.mtl instead, see `encode_material`.
    """
    vertices = mesh.vertices @ Z_UP_TO_Y_UP
    if isinstance(mesh, TexturedMesh):
        lines = ["# fastsam3d: y up, coloured by a texture", f"mtllib {name}.mtl", f"o {name}"]
        lines += [f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in vertices.tolist()]
        # OBJ counts from the bottom of the picture.
        lines += [f"vt {u:.6f} {1 - v:.6f}" for u, v in mesh.uv.tolist()]
        lines += [f"vn {x:.4f} {y:.4f} {z:.4f}" for x, y, z in (mesh.normals @ Z_UP_TO_Y_UP).tolist()]
        lines += [f"usemtl {name}"]
        lines += [f"f {a}/{a}/{a} {b}/{b}/{b} {c}/{c}/{c}" for a, b, c in (mesh.faces + 1).tolist()]
        return ("\n".join(lines) + "\n").encode("utf-8", "surrogateescape")
    colors = np.clip(mesh.vertex_colors, 0.0, 1.0)
    lines = ["# fastsam3d: y up, vertex colours in sRGB", f"o {name}"]
    lines += [
        f"v {x:.6f} {y:.6f} {z:.6f} {r:.4f} {g:.4f} {b:.4f}"
        for x, y, z, r, g, b in np.hstack([vertices, colors]).tolist()
    ]
    lines += [f"f {a} {b} {c}" for a, b, c in (mesh.faces + 1).tolist()]
    return ("\n".join(lines) + "\n").encode("utf-8", "surrogateescape")


def encode_material(mesh: Mesh, name: str) -> dict[str, bytes]:
    """Encodes the texture and the material file of a textured mesh; a mesh without a texture has none.

    The material is white and matt, coloured by the picture `name`_texture.png. A picture `name`.png would be the file
    that people make an object of: it must not be replaced.
    """
    if not isinstance(mesh, TexturedMesh):
        return {}
    from fastsam3d.meshes.texture import texture_png

    lines = [f"newmtl {name}", "Ka 1 1 1", "Kd 1 1 1", "Ks 0 0 0", "d 1", "illum 1", f"map_Kd {name}{TEXTURE_ENDING}"]
    return {TEXTURE_ENDING: texture_png(mesh), ".mtl": ("\n".join(lines) + "\n").encode("utf-8", "surrogateescape")}


def read_obj(path: Path) -> list[tuple[str, Mesh]]:
    """Reads an OBJ file with its material and texture; it is taken to be y up and turned to z up."""
    from fastsam3d.meshes.parsing.obj import read_obj_file

    return read_obj_file(path)


register_format(
    MeshFormat(".obj", Y_UP, "sRGB", encode_mesh=encode_obj, encode_companions=encode_material, read=read_obj)
)
