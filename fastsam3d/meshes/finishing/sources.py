"""Inputs of the finish: results of this package, of SAM 3D Objects, TRELLIS and TRELLIS.2, and files.

Classes of other packages are not imported: results are recognised by their attributes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fastsam3d.errors import UserError
from fastsam3d.meshes.finishing.voxel_colors import VoxelColors
from fastsam3d.meshes.mesh import Mesh, TexturedMesh
from fastsam3d.meshes.parsing.checks import checked
from fastsam3d.meshes.splats.splats import Splats, splats_of

GREY = 0.7
"""Colour of a surface that has none."""


@dataclass(frozen=True)
class Source:
    """A surface and the sources of its colours, all in one frame (z up).

    Attributes:
        mesh: with colours at its vertices, or in a texture.
        splats: Gaussians of the same object; None without.
        voxels: colours in voxels; None without.
        colored: whether the colours of `mesh` are the object's, and not only grey.
        picture: lays a picture's colours over those of points, `painted(points, normals, colors)`, each `[N, 3]`; None
            without. The small model's results have one (`Reconstruction.projection`).
    """

    mesh: Mesh
    splats: Splats | None = None
    voxels: VoxelColors | None = None
    colored: bool = True
    picture: Any = None

    @property
    def kinds(self) -> tuple[str, ...]:
        """Lists the sources that colours can be taken from, the best one first."""
        present = {
            "voxels": self.voxels is not None and len(self.voxels.coords) > 0,
            "gaussians": self.splats is not None and len(self.splats) > 0,
            "surface": True,
        }
        return tuple(kind for kind, there in present.items() if there)


def source_of(result: Any, gaussians: Any = None) -> Source:
    """Reads a pipeline's result, or files.

    Args:
        result: a `Reconstruction`, a dictionary with `mesh` and `gaussian` (SAM 3D Objects, TRELLIS), a mesh of one of
            them, a list with one such thing, a mesh with voxel attributes (TRELLIS.2), a `Mesh`, or the path of a file.
        gaussians: Gaussians of the same object, or the path of a 3DGS PLY file; they replace those of the result.

    Raises:
        UserError: there is no mesh with faces, a face refers to a vertex that is not there, or the kind of the result
            is unknown.
    """
    if isinstance(result, (str, Path)):
        source = _of_file(Path(result))
    else:
        source = _of_object(result)
        source = replace(source, mesh=_usable(source.mesh))
    if gaussians is not None:
        source = replace(source, splats=_splats(gaussians))
    if source.mesh.is_empty:
        raise UserError("The mesh to finish has no faces. Decode the mesh too, or give a file that has faces.")
    return source


def _usable(mesh: Mesh) -> Mesh:
    """The mesh without vertices that have no finite place; files are checked in this way when they are read."""
    try:
        ((_, kept),) = checked([("", mesh)], "the result")
    except ValueError as error:
        raise UserError(f"The mesh cannot be finished: {error}. Give another result.") from None
    return kept


def _of_object(result: Any) -> Source:
    if isinstance(result, (list, tuple)):
        if len(result) != 1:
            raise UserError(
                f"There are {len(result)} results in the list: finish one at a time, as finish(results[0])."
            )
        return _of_object(result[0])
    if isinstance(result, Mesh):
        return Source(result)
    if isinstance(result, Mapping):
        mesh, gaussian = _first(result.get("mesh")), _first(result.get("gaussian", result.get("gs")))
    elif hasattr(result, "mesh") and hasattr(result, "gaussian"):
        mesh, gaussian = result.mesh, result.gaussian
    else:
        mesh, gaussian = result, None
    if mesh is None:
        raise UserError('The result has no mesh to finish. Run the pipeline with the format "mesh" too.')
    splats = None if gaussian is None else _splats(gaussian)
    if isinstance(mesh, Mesh):
        return Source(mesh, splats, picture=getattr(result, "projection", None))
    if not (hasattr(mesh, "vertices") and hasattr(mesh, "faces")):
        raise UserError(
            f"A {type(mesh).__name__} cannot be finished: it has no vertices and faces. Give a mesh or a file."
        )
    vertices = _rows_of_three(mesh.vertices, np.float32, "vertices")
    faces = _rows_of_three(mesh.faces, np.int64, "faces")
    attributes = getattr(mesh, "vertex_attrs", None)
    voxels = _voxels(mesh) if hasattr(mesh, "attrs") and hasattr(mesh, "voxel_size") else None
    colored = attributes is not None and len(attributes) == len(vertices)
    colors = np.full(vertices.shape, GREY, dtype=np.float32)
    if colored:
        colors = np.clip(_array(attributes, np.float32)[:, :3], 0.0, 1.0)
    return Source(Mesh(vertices, faces, colors), splats, voxels, colored)


def _rows_of_three(values: Any, dtype: Any, name: str) -> np.ndarray:
    rows = _array(values, dtype)
    if not rows.size:
        return rows.reshape(0, 3)
    if rows.ndim != 2 or rows.shape[1] != 3:
        raise UserError(
            f"The mesh cannot be finished: its {name} have the shape {list(rows.shape)} and not [number, 3]. Give "
            "triangles with places in space."
        )
    return rows


def _voxels(mesh: Any) -> VoxelColors:
    layout = dict(mesh.layout)
    if "base_color" not in layout:
        raise UserError(f"The mesh's voxels hold {', '.join(layout) or 'nothing'}, but no base_color.")
    values = _array(mesh.attrs, np.float32)
    known = np.isfinite(values).all(axis=1)
    return VoxelColors(
        _array(mesh.coords, np.int64)[known],
        np.clip(values[known], 0.0, 1.0),
        _array(mesh.origin, np.float64).reshape(3),
        float(mesh.voxel_size),
        layout,
    )


def _of_file(path: Path) -> Source:
    from fastsam3d.meshes.reading import read_model

    meshes = [mesh for _, mesh in read_model(path) if not mesh.is_empty]
    if not meshes:
        raise UserError(f"{path} has no faces to finish. Give a file with a mesh; Gaussians go to --gaussians.")
    if len(meshes) == 1:
        return Source(meshes[0])
    if any(isinstance(mesh, TexturedMesh) for mesh in meshes):
        raise UserError(f"{path} holds {len(meshes)} parts with textures. Give a file of one part.")
    return Source(merged(meshes))


def merged(meshes: Sequence[Mesh]) -> Mesh:
    """Merges several meshes into one, with colours at the vertices."""
    starts = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes[:-1])])
    return Mesh(
        np.concatenate([mesh.vertices for mesh in meshes]),
        np.concatenate([mesh.faces + start for mesh, start in zip(meshes, starts, strict=True)]),
        np.concatenate([mesh.vertex_colors for mesh in meshes]),
    )


def _splats(gaussians: Any) -> Splats:
    if isinstance(gaussians, (str, Path)):
        from fastsam3d.meshes.splats.reading import read_splats

        return read_splats(gaussians)
    try:
        return splats_of(_first(gaussians))
    except TypeError as error:
        raise UserError(f"The Gaussians cannot be used: {error}.") from None


def _first(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        if len(value) > 1:
            raise UserError(f"There are {len(value)} objects in the result: finish one at a time.")
        return value[0] if value else None
    return value


def _array(values: Any, dtype: Any) -> np.ndarray:
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        # NumPy has no bfloat16.
        values = (values.float() if str(values.dtype) == "torch.bfloat16" else values).numpy()
    return np.asarray(values).astype(dtype)
