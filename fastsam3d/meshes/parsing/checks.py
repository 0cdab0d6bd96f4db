"""Checks meshes that come from a file or another program, before anything is computed with them."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import numpy as np

from fastsam3d.meshes.mesh import Mesh, TexturedMesh

logger = logging.getLogger(__name__)


def checked(found: list[tuple[str, Mesh]], source: str | Path) -> list[tuple[str, Mesh]]:
    """Leaves out vertices whose place is not finite, and their faces. How many these are goes to the log.

    Args:
        found: (name, mesh) of each part.
        source: the file, or another name of where the meshes come from, for the log.

    Raises:
        ValueError: a face refers to a vertex that is not there.
    """
    result, unknown, total = [], 0, 0
    for name, mesh in found:
        if len(mesh.faces) and (mesh.faces.min() < 0 or mesh.faces.max() >= len(mesh.vertices)):
            raise ValueError("a face refers to a vertex that is not there")
        kept = _with_known_places(mesh)
        unknown, total = unknown + len(mesh.vertices) - len(kept.vertices), total + len(mesh.vertices)
        result.append((name, kept))
    if unknown:
        logger.warning("%s: %d of %d points have no place (NaN or infinite) and are left out", source, unknown, total)
    return result


def _with_known_places(mesh: Mesh) -> Mesh:
    """Leaves out vertices whose place is not finite, and their faces; a colour that is not finite becomes grey."""
    known = np.isfinite(mesh.vertices).all(axis=1)
    if not np.isfinite(mesh.vertex_colors).all():
        mesh = dataclasses.replace(mesh, vertex_colors=np.nan_to_num(mesh.vertex_colors, nan=0.7, posinf=1, neginf=0))
    if isinstance(mesh, TexturedMesh) and not (np.isfinite(mesh.uv).all() and np.isfinite(mesh.normals).all()):
        mesh = dataclasses.replace(mesh, uv=np.nan_to_num(mesh.uv), normals=np.nan_to_num(mesh.normals))
    if known.all():
        return mesh
    order = np.cumsum(known) - 1
    faces = order[mesh.faces[known[mesh.faces].all(axis=1)]]
    rows = {"vertices": mesh.vertices[known], "vertex_colors": mesh.vertex_colors[known]}
    if isinstance(mesh, TexturedMesh):
        rows |= {"normals": mesh.normals[known], "uv": mesh.uv[known]}
        if mesh.tangents is not None:
            rows["tangents"] = mesh.tangents[known]
    return dataclasses.replace(mesh, faces=faces, **rows)
