"""Cleans meshes: joins vertices at one place; drops faces that become lines by this, double faces and loose pieces."""

from __future__ import annotations

import numpy as np

from fastsam3d.basics.optional import optional_module
from fastsam3d.meshes.geometry import face_cross_products
from fastsam3d.meshes.mesh import Mesh

EXTRA, PURPOSE = "simplify", "cleaning a mesh"


def joined(mesh: Mesh) -> Mesh:
    """Joins vertices at the same place; the first one's colour is kept. Removes vertices without a face.

    Removes faces with two corners at one place, and all but one of the faces with the same three corners, in any order.
    """
    places, first, place = np.unique(mesh.vertices, axis=0, return_index=True, return_inverse=True)
    faces = place.reshape(-1)[mesh.faces]
    whole = (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])
    faces = faces[whole]
    once = np.unique(np.sort(faces, axis=1), axis=0, return_index=True)[1]
    faces = faces[np.sort(once)]
    used, faces = np.unique(faces, return_inverse=True)
    return Mesh(places[used], faces.reshape(-1, 3), mesh.vertex_colors[first[used]])


def without_loose_pieces(mesh: Mesh, share: float) -> Mesh:
    """Removes pieces whose area is less than a share of the largest piece's area; 0 keeps all.

    Pieces are connected if they have a vertex in common.

    Raises:
        UserError: SciPy is not installed.
    """
    if share <= 0 or mesh.is_empty:
        return mesh
    sparse = optional_module("scipy.sparse", PURPOSE, EXTRA)
    graph = optional_module("scipy.sparse.csgraph", PURPOSE, EXTRA)
    count = len(mesh.vertices)
    start, end = mesh.faces[:, :2].reshape(-1), mesh.faces[:, 1:].reshape(-1)
    edges = sparse.coo_matrix((np.ones(len(start), dtype=np.int8), (start, end)), shape=(count, count))
    pieces, piece = graph.connected_components(edges, directed=False)
    if pieces == 1:
        return mesh
    own = piece[mesh.faces[:, 0]]
    area = np.bincount(own, np.linalg.norm(face_cross_products(mesh.vertices, mesh.faces), axis=1), minlength=pieces)
    faces = mesh.faces[area[own] >= share * area.max()]
    used, faces = np.unique(faces, return_inverse=True)
    return Mesh(mesh.vertices[used], faces.reshape(-1, 3), mesh.vertex_colors[used])


def edge_facts(faces: np.ndarray) -> dict[str, int]:
    """Counts the edges of a mesh whose vertices are joined: `open` have one face, `crowded` more than two."""
    edges = np.sort(np.stack([faces, np.roll(faces, -1, axis=1)], axis=2).reshape(-1, 2), axis=1)
    counts = np.unique(edges, axis=0, return_counts=True)[1]
    return {"open": int((counts == 1).sum()), "crowded": int((counts > 2).sum())}
