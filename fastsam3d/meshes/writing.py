"""Reconstructions to files: GLB, PLY, OBJ and STL, chosen by the file's suffix.

| suffix | frame        | holds                                                                     |
|--------|--------------|---------------------------------------------------------------------------|
| .glb   | y up (glTF)  | mesh, smooth normals, colours by vertex (linear light) or as a texture    |
| .ply   | z up, object | Gaussians where the model made them, else coloured points of the surface  |
| .obj   | y up         | mesh with `v x y z r g b` colours (sRGB), or with .mtl and .png beside it |
| .stl   | z up, object | bare mesh, for printing                                                   |

`Preparation` says what happens to a mesh before it is written.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastsam3d.basics.files import write_atomically
from fastsam3d.errors import UserError
from fastsam3d.meshes.geometry import Z_UP_TO_Y_UP, face_cross_products, interpolate, sample_surface, vertex_normals
from fastsam3d.meshes.gltf import Node, glb_bytes
from fastsam3d.meshes.mesh import Mesh, TexturedMesh

if TYPE_CHECKING:
    from fastsam3d.meshes.gaussians import Gaussian

SURFACE_POINTS = 50_000
POINT_SEED = 0
"""Seed of the surface points, so that one mesh always gives one file."""


AXES: dict[str, dict[str, Any]] = {
    "glb": {"up": "+y", "front": "+z", "right": "+x", "colours": "linear light (glTF); a texture is sRGB"},
    "obj": {"up": "+y", "front": "+z", "right": "+x", "colours": "sRGB"},
    "stl": {"up": "+z", "front": "-y", "right": "+x", "colours": "none"},
    "ply": {"up": "+z", "front": "-y", "right": "+x", "colours": "sRGB; of Gaussians, spherical harmonics"},
}
"""Axes of the files of single objects, by format. `right` is that of somebody who looks at the front."""
UNITS = "object units: the cube that an object is reconstructed in has the side 1; layout.json gives the scale"


@dataclass(frozen=True)
class Preparation:
    """What happens to a mesh before it is written, in this order.

    Attributes:
        faces: it is reduced to about so many; None leaves them.
        watertight: holes are closed, and what makes edges ambiguous is dropped.
        texture: colours go into a picture of so many texels a side; None leaves them at the vertices.
    """

    faces: int | None = None
    watertight: bool = False
    texture: int | None = None

    def check(self) -> None:
        """Finds out before any work is done whether what is asked for can be had.

        Raises:
            UserError: a package that is needed is not installed.
        """
        from fastsam3d.basics.optional import optional_module
        from fastsam3d.meshes import simplification, texture

        needed = []
        if self.faces is not None:
            needed.append(("fast_simplification", simplification.PURPOSE, simplification.EXTRA))
        if self.texture is not None:
            needed.append(("xatlas", texture.PURPOSE, texture.EXTRA))
        for module, purpose, extra in needed:
            optional_module(module, purpose, extra)
            optional_module("scipy.spatial", purpose, extra)

    def apply(self, mesh: Mesh) -> Mesh:
        """The mesh to write. A mesh without faces comes back as it is.

        Raises:
            UserError: a value out of range, or a missing package.
        """
        if mesh.is_empty:
            return mesh
        from fastsam3d.meshes.simplification import close_surface, simplify
        from fastsam3d.meshes.texture import bake_texture

        prepared = mesh if self.faces is None else simplify(mesh, self.faces)
        if self.watertight:
            prepared = close_surface(prepared)
        return prepared if self.texture is None else bake_texture(prepared, self.texture, detail=mesh)




def export_mesh(mesh: Mesh, path: str | Path) -> Path:
    """Writes a mesh in the format of the path's suffix, see the module's table.

    Raises:
        UserError: unknown suffix, a mesh without faces, or the path cannot be written.
    """
    path = Path(path)
    encode = ENCODERS.get(path.suffix.lower())
    if encode is None:
        raise UserError(f"{path} has no known suffix; use one of {', '.join(ENCODERS)}.")
    if mesh.is_empty:
        raise UserError(f"The mesh for {path} has no faces. Try another seed, or a mask that shows more of the object.")
    if isinstance(mesh, TexturedMesh) and path.suffix.lower() == ".obj":
        from fastsam3d.meshes.texture import texture_png

        write_atomically(path.with_suffix(".png"), texture_png(mesh))
        write_atomically(path.with_suffix(".mtl"), _material(path.stem).encode("utf-8"))
    return write_atomically(path, encode(mesh, path.stem))


def export_gaussians(gaussian: Gaussian, path: str | Path) -> Path:
    """Writes Gaussians as a splat PLY (z up, log scales, logit opacity).

    Raises:
        UserError: the path cannot be written.
    """
    columns = gaussian.ply_fields()
    record = np.empty(len(gaussian), dtype=[(name, "<f4") for name in columns])
    for name, values in columns.items():
        record[name] = values
    fields = [f"property float {name}" for name in columns]
    comment = "comment fastsam3d: 3D Gaussians; frame: object, z up"
    return write_atomically(path, _ply_header(comment, len(gaussian), fields) + record.tobytes())


def encode_glb(mesh: Mesh, name: str = "object") -> bytes:
    """One mesh as a `.glb` file, y up."""
    return glb_bytes([Node(name, mesh)])


def encode_ply(mesh: Mesh, name: str = "object", count: int = SURFACE_POINTS) -> bytes:
    """Coloured points with normals, spread evenly over the surface, in the object frame (z up).

    The header says what they are: programs that open any PLY as Gaussian splats show these as nothing.
    """
    del name
    chosen, weights = sample_surface(mesh.vertices, mesh.faces, count, np.random.default_rng(POINT_SEED))
    normals = interpolate(vertex_normals(mesh.vertices, mesh.faces), mesh.faces, chosen, weights)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-20)
    record = np.empty(count, dtype=[("xyz", "<f4", 3), ("normal", "<f4", 3), ("rgb", "u1", 3)])
    record["xyz"] = interpolate(mesh.vertices, mesh.faces, chosen, weights)
    record["normal"] = normals
    record["rgb"] = _to_bytes(interpolate(mesh.vertex_colors, mesh.faces, chosen, weights))
    fields = [f"property float {field}" for field in ("x", "y", "z", "nx", "ny", "nz")]
    fields += [f"property uchar {field}" for field in ("red", "green", "blue")]
    comments = (
        "comment fastsam3d: points sampled from the surface of a mesh, not Gaussians",
        "comment frame: object, z up; colours: sRGB",
    )
    return _ply_header("\n".join(comments), count, fields) + record.tobytes()


def _ply_header(comments: str, count: int, fields: list[str]) -> bytes:
    lines = [
        "ply",
        "format binary_little_endian 1.0",
        comments,
        f"element vertex {count}",
        *fields,
        "end_header",
    ]
    return ("\n".join(lines) + "\n").encode("ascii")


def encode_obj(mesh: Mesh, name: str = "object") -> bytes:
    """Wavefront OBJ, y up, with the widely read extension of colours after the coordinates.

    Of a textured mesh it refers to `name`.mtl instead, which `export_mesh` writes beside it.
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
        return ("\n".join(lines) + "\n").encode("utf-8")
    colors = np.clip(mesh.vertex_colors, 0.0, 1.0)
    lines = ["# fastsam3d: y up, vertex colours in sRGB", f"o {name}"]
    lines += [
        f"v {x:.6f} {y:.6f} {z:.6f} {r:.4f} {g:.4f} {b:.4f}"
        for x, y, z, r, g, b in np.hstack([vertices, colors]).tolist()
    ]
    lines += [f"f {a} {b} {c}" for a, b, c in (mesh.faces + 1).tolist()]
    return ("\n".join(lines) + "\n").encode("utf-8")


def _material(name: str) -> str:
    """The material library of a textured OBJ: white, matt, coloured by the picture."""
    lines = [f"newmtl {name}", "Ka 1 1 1", "Kd 1 1 1", "Ks 0 0 0", "d 1", "illum 1", f"map_Kd {name}.png"]
    return "\n".join(lines) + "\n"


def encode_stl(mesh: Mesh, name: str = "object") -> bytes:
    """Binary STL in the object frame (z up)."""
    del name
    normals = face_cross_products(mesh.vertices, mesh.faces)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-20)
    record = np.zeros(len(mesh.faces), dtype=[("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
    record["normal"], record["corners"] = normals, mesh.vertices[mesh.faces]
    header = b"fastsam3d: z up".ljust(80, b" ")
    return header + np.uint32(len(mesh.faces)).astype("<u4").tobytes() + record.tobytes()


def _to_bytes(colors: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(colors, 0.0, 1.0) * 255).astype(np.uint8)


ENCODERS: dict[str, Callable[[Mesh, str], bytes]] = {
    ".glb": encode_glb,
    ".ply": encode_ply,
    ".obj": encode_obj,
    ".stl": encode_stl,
}
"""Mesh formats by suffix: functions of a mesh and an object name."""
