"""Reads files with trimesh: shapes, colours at the vertices, textures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fastsam3d.meshes.geometry import vertex_normals
from fastsam3d.meshes.mesh import Mesh, TexturedMesh

GREY = 0.7
"""Colour of vertices for which the file gives none, sRGB 0..1."""


def read_with_trimesh(path: Path, turn: np.ndarray | None = None) -> list[tuple[str, Mesh]]:
    """Reads (name, mesh) of every part of a file in a format that trimesh knows.

    Args:
        path: the file; its suffix names the format.
        turn: `[3, 3]`, applied to the file's vertices as row vectors; None leaves them.
    """
    import trimesh

    loaded: Any = trimesh.load(path, process=False)
    parts = loaded.geometry.items() if isinstance(loaded, trimesh.Scene) else [(path.stem, loaded)]
    turn = np.eye(3) if turn is None else turn
    return [(name, _converted(part, turn)) for name, part in parts]


def _converted(part: Any, turn: np.ndarray) -> Mesh:
    """Converts a trimesh object (a mesh, or a point cloud, which has no faces)."""
    vertices = (np.asarray(part.vertices, dtype=np.float64) @ turn).astype(np.float32)
    faces = np.asarray(getattr(part, "faces", np.zeros((0, 3))), dtype=np.int64).reshape(-1, 3)
    colors: np.ndarray = np.full((len(vertices), 3), GREY, dtype=np.float32)
    visual: Any = getattr(part, "visual", None)
    own = getattr(part, "colors", None) if visual is None or not len(faces) else None
    if visual is not None and getattr(visual, "kind", None) == "vertex":
        own = visual.vertex_colors
    if own is not None and len(own) == len(vertices):
        colors = np.asarray(own)[:, :3].astype(np.float32) / 255
    picture = getattr(getattr(visual, "material", None), "image", None)
    uv = getattr(visual, "uv", None)
    if picture is None or uv is None or not len(faces):
        return Mesh(vertices, faces, colors)
    # trimesh counts from the bottom of the picture.
    places = np.stack([uv[:, 0], 1 - uv[:, 1]], axis=1).astype(np.float32)
    pixels = np.asarray(picture.convert("RGB"))
    return TexturedMesh(vertices, faces, colors, vertex_normals(vertices, faces), places, pixels)
