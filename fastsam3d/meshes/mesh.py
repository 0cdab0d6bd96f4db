"""Holds triangle meshes with colours at their vertices or in a texture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, repr=False)
class Mesh:
    """A coloured triangle mesh in the object frame (z up, about -0.5..0.5).

    Attributes:
        vertices: fp32 `[V, 3]`.
        faces: int64 `[F, 3]`, counter-clockwise seen from outside.
        vertex_colors: fp32 `[V, 3]`, 0..1, sRGB as the pixels of the input.
    """

    vertices: np.ndarray
    faces: np.ndarray
    vertex_colors: np.ndarray

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {len(self.vertices):,} vertices, {len(self.faces):,} faces>"

    @property
    def is_empty(self) -> bool:
        """Tells whether the mesh has no faces, so that there is nothing to draw or export."""
        return len(self.faces) == 0


@dataclass(frozen=True, repr=False)
class TexturedMesh(Mesh):
    """A mesh with its colours in a picture. Vertices are doubled along the seams of the picture.

    Attributes:
        normals: fp32 `[V, 3]`, unit, of the surface without seams, so that the shading shows none.
        uv: fp32 `[V, 2]`, positions in the picture, 0..1, from its left and from its top.
        texture: uint8 `[S, S, 3]`, sRGB.
        material: uint8 `[S, S, 2]`, metallic and roughness; None for a matt surface.
        tangents: fp32 `[V, 4]`, the frame of the normal map at each vertex: unit tangent, and 1 or -1 for the side of
            the bitangent; None without a normal map.
        normal_map: uint8 `[S, S, 3]`, `(n + 1) / 2` of the normal in that frame; None without.
    """

    normals: np.ndarray
    uv: np.ndarray
    texture: np.ndarray
    material: np.ndarray | None = None
    tangents: np.ndarray | None = None
    normal_map: np.ndarray | None = None
