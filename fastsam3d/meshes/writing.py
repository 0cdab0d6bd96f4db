"""Writes meshes and Gaussians to files. The path's suffix names the format; `formats` holds one file a format.

`Preparation` says what happens to a mesh before it is written.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fastsam3d.basics.files import write_atomically
from fastsam3d.basics.paths import user_path
from fastsam3d.errors import UserError
from fastsam3d.meshes.formats import format_to_write
from fastsam3d.meshes.mesh import Mesh

if TYPE_CHECKING:
    from fastsam3d.meshes.gaussians import Gaussian


@dataclass(frozen=True)
class Preparation:
    """Changes a mesh before it is written, in the order of the attributes.

    Attributes:
        faces: number of faces to reduce the mesh to, about; None keeps all.
        watertight: close holes, and drop faces that make an edge ambiguous.
        texture: side in texels of the picture to bake the colours into; None leaves them at the vertices.
    """

    faces: int | None = None
    watertight: bool = False
    texture: int | None = None

    def check(self) -> None:
        """Checks that the packages for the wanted changes are installed; call it before any work is done.

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
        """Returns the changed mesh; a mesh without faces is returned as it is.

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


def export_mesh(mesh: Mesh, path: str | Path, compress: str = "none") -> Path:
    """Writes a mesh in the format of the path's suffix, and beside it the files that the format refers to.

    Args:
        mesh: with faces.
        path: of the file.
        compress: for GLB files, see `compression.compressing.compress_glb`.

    Raises:
        UserError: a suffix of no format for meshes, a mesh without faces, the path cannot be written, or the file
            cannot be compressed.
    """
    path = user_path(path)
    file_format = format_to_write(path)
    check_compressed(path, compress)
    if file_format.encode_mesh is None:
        raise UserError(f"{path} cannot hold a mesh: {file_format.suffix} files hold Gaussians only.")
    if mesh.is_empty:
        raise UserError(f"The mesh for {path} has no faces. Try another seed, or a mask that shows more of the object.")
    for ending, companion in file_format.encode_companions(mesh, path.stem).items():
        write_atomically(path.with_name(path.stem + ending), companion)
    data = file_format.encode_mesh(mesh, path.stem)
    if compress != "none":
        from fastsam3d.meshes.compression.compressing import compress_glb

        data = compress_glb(data, compress)
    return write_atomically(path, data)


def check_compressed(path: Path, compress: str) -> None:
    """Checks that a file can be compressed in a way.

    Raises:
        UserError: an unknown way, a missing package, or a file that is not GLB.
    """
    from fastsam3d.meshes.compression.compressing import check_compression

    check_compression(compress)
    if compress != "none" and path.suffix.lower() != ".glb":
        raise UserError(f"Only GLB files can be compressed, and {path} is none: choose another name or no compression.")


def export_gaussians(gaussian: Gaussian, path: str | Path) -> Path:
    """Writes Gaussians in the format of the path's suffix.

    Raises:
        UserError: a suffix of no format for Gaussians, or the path cannot be written.
    """
    path = user_path(path)
    file_format = format_to_write(path)
    if file_format.encode_gaussians is None:
        raise UserError(f"{path} cannot hold Gaussians: {file_format.suffix} files hold meshes only.")
    return write_atomically(path, file_format.encode_gaussians(gaussian))
