"""File formats of 3D objects, one a file: how it is written, how it is read, and its registration.

Every module of this folder is imported when a format is first looked up, and registers what it holds: a new format is
a new file. A module elsewhere calls `register_format` in the same way:

    from fastsam3d.meshes.formats import Z_UP, MeshFormat, register_format

    register_format(MeshFormat(".xyz", Z_UP, "sRGB", encode_mesh=encode_xyz, samples_surface=True))

Importing this package imports neither PyTorch nor a format. The modules of the formats import PyTorch, trimesh and
Pillow in their functions only, because the command line's help lists the formats.
"""

from __future__ import annotations

from fastsam3d.meshes.formats.registry import (
    FACES,
    GAUSSIANS,
    OBJECT_UNITS,
    POINTS,
    Y_UP,
    Z_UP,
    MeshFormat,
    format_to_read,
    format_to_write,
    mesh_formats,
    read_formats,
    register_format,
    suffix_list,
    written_formats,
)

__all__ = [
    "FACES",
    "GAUSSIANS",
    "OBJECT_UNITS",
    "POINTS",
    "Y_UP",
    "Z_UP",
    "MeshFormat",
    "format_to_read",
    "format_to_write",
    "mesh_formats",
    "read_formats",
    "register_format",
    "suffix_list",
    "written_formats",
]
