"""Writes a reconstruction to a file whose suffix names the format."""

from __future__ import annotations

from pathlib import Path

from fastsam3d.errors import UserError
from fastsam3d.meshes.formats import GAUSSIANS, format_to_write
from fastsam3d.meshes.writing import Preparation, export_gaussians, export_mesh
from fastsam3d.sam3d.pipeline.reconstruction import Reconstruction


def export(
    reconstruction: Reconstruction,
    path: str | Path,
    *,
    faces: int | None = None,
    watertight: bool = False,
    texture: int | None = None,
) -> Path:
    """Writes a reconstruction in the format of the path's suffix; an existing file is replaced as a whole.

    Formats: `.glb`, `.obj`, `.stl`, `.ply`, and those that `fastsam3d.meshes.formats.register_format` added. If the
    result has Gaussians and the format takes them (`.ply`), the file holds the Gaussians, else the mesh.

    Args:
        faces: number of faces to reduce the mesh to, about; None keeps all.
        watertight: close holes of the mesh.
        texture: side in texels of the picture to bake the colours into; None leaves them at the vertices.

    Raises:
        UserError: unknown suffix, nothing to write, a missing package, or the path cannot be written.
    """
    mesh, gaussian = reconstruction.mesh, reconstruction.gaussian
    file_format = format_to_write(path)
    content = file_format.content(mesh is not None, gaussian is not None)
    if content == GAUSSIANS:
        return export_gaussians(gaussian, path)
    if content is None or mesh is None:
        needed, key = ("a mesh", "mesh") if file_format.encode_mesh is not None else ("Gaussians", "gaussian")
        raise UserError(f'{path} needs {needed}, but the run made none. Run with formats=("{key}",).')
    return export_mesh(Preparation(faces, watertight, texture).apply(mesh), path)
