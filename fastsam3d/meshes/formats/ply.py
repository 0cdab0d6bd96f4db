"""PLY (binary): Gaussians for splat viewers where the result has them, else coloured points of the surface; z up."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fastsam3d.errors import UserError
from fastsam3d.meshes.formats.registry import Z_UP, MeshFormat, register_format
from fastsam3d.meshes.geometry import interpolate, sample_surface, vertex_normals
from fastsam3d.meshes.mesh import Mesh

if TYPE_CHECKING:
    from fastsam3d.meshes.gaussians import Gaussian

SURFACE_POINTS = 50_000
POINT_SEED = 0
"""Seed of the surface points, so that one mesh always gives one file."""


def encode_gaussians(gaussian: Gaussian) -> bytes:
    """Encodes Gaussians as a 3DGS PLY file (z up, logarithmic scales, opacity logits).

    Gaussians with a value that is not finite are left out: one of them would spoil every picture.

    Raises:
        UserError: there is none with finite values.
    """
    columns = gaussian.ply_fields()
    record = np.empty(len(gaussian), dtype=[(name, "<f4") for name in columns])
    for name, values in columns.items():
        record[name] = values
    record = record[np.isfinite(np.stack(list(columns.values()))).all(axis=0)]
    if not len(record):
        raise UserError("There are no Gaussians with finite values to write. Run it again with another seed.")
    fields = [f"property float {name}" for name in columns]
    comment = "comment fastsam3d: 3D Gaussians; frame: object, z up"
    return _header(comment, len(record), fields) + record.tobytes()


def encode_points(mesh: Mesh, name: str = "object", count: int = SURFACE_POINTS) -> bytes:
    """Encodes `count` coloured points with normals, spread evenly over the surface, in the object frame (z up).

    The header says that they are points: a program that opens every PLY file as Gaussians shows nothing of them.
    `name` is not stored.
    """
    del name
    chosen, weights = sample_surface(mesh.vertices, mesh.faces, count, np.random.default_rng(POINT_SEED))
    normals = interpolate(vertex_normals(mesh.vertices, mesh.faces), mesh.faces, chosen, weights)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-20)
    record = np.empty(count, dtype=[("xyz", "<f4", 3), ("normal", "<f4", 3), ("rgb", "u1", 3)])
    record["xyz"] = interpolate(mesh.vertices, mesh.faces, chosen, weights)
    record["normal"] = normals
    colors = interpolate(mesh.vertex_colors, mesh.faces, chosen, weights)
    record["rgb"] = np.rint(np.clip(colors, 0.0, 1.0) * 255).astype(np.uint8)
    fields = [f"property float {field}" for field in ("x", "y", "z", "nx", "ny", "nz")]
    fields += [f"property uchar {field}" for field in ("red", "green", "blue")]
    comments = (
        "comment fastsam3d: points sampled from the surface of a mesh, not Gaussians",
        "comment frame: object, z up; colours: sRGB",
    )
    return _header("\n".join(comments), count, fields) + record.tobytes()


def _header(comments: str, count: int, fields: list[str]) -> bytes:
    lines = [
        "ply",
        "format binary_little_endian 1.0",
        comments,
        f"element vertex {count}",
        *fields,
        "end_header",
    ]
    return ("\n".join(lines) + "\n").encode("ascii")


def read_ply(path: Path) -> list[tuple[str, Mesh]]:
    """Reads faces, points, or the centres of Gaussians from a PLY file, which is taken to be z up."""
    from fastsam3d.meshes.parsing.ply import read_ply_file

    return read_ply_file(path)


register_format(
    MeshFormat(
        ".ply",
        Z_UP,
        "sRGB; of Gaussians, spherical harmonics",
        encode_mesh=encode_points,
        encode_gaussians=encode_gaussians,
        read=read_ply,
        samples_surface=True,
    )
)
