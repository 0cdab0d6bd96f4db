"""Writes a reconstruction to a file whose suffix names the format."""

from __future__ import annotations

from pathlib import Path

from fastsam3d.errors import UserError
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

    Args:
        faces, watertight, texture: what happens to the mesh before, see `Preparation`.

    Raises:
        UserError: unknown suffix, nothing to write, a missing package, or the path cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() == ".ply" and reconstruction.gaussian is not None:
        return export_gaussians(reconstruction.gaussian, path)
    if reconstruction.mesh is None:
        raise UserError(f'{path} needs a mesh, but the run made none. Run with formats=("mesh",).')
    return export_mesh(Preparation(faces, watertight, texture).apply(reconstruction.mesh), path)
