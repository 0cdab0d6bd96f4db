"""Triangle meshes with colours at their vertices or in a texture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, repr=False)
class Mesh:
    """Coloured triangle mesh in the object frame (z up, about -0.5..0.5).

    Attributes:
        vertices: fp32 `[V, 3]`.
        faces: int64 `[F, 3]`, counter-clockwise seen from outside.
        vertex_colors: fp32 `[V, 3]`, 0..1, encoded as the picture's pixels are (sRGB).
    """

    vertices: np.ndarray
    faces: np.ndarray
    vertex_colors: np.ndarray

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {len(self.vertices):,} vertices, {len(self.faces):,} faces>"

    @property
    def is_empty(self) -> bool:
        """No face, so nothing to show or export."""
        return len(self.faces) == 0


@dataclass(frozen=True, repr=False)
class TexturedMesh(Mesh):
    """A mesh whose colours are in a picture; vertices are doubled where the picture is cut.

    Attributes:
        normals: fp32 `[V, 3]`, unit, of the surface before it was cut, so that no cut shows in its shading.
        uv: fp32 `[V, 2]`, place in the picture, 0..1, from the left and from the top.
        texture: uint8 `[S, S, 3]`, sRGB.
    """

    normals: np.ndarray
    uv: np.ndarray
    texture: np.ndarray
