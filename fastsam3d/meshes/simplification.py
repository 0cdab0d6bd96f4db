"""Reduces the faces of meshes, keeping their colours, and closes surfaces, as other programs need them."""

from __future__ import annotations

import logging
from collections import defaultdict

import numpy as np

from fastsam3d.basics.optional import optional_module
from fastsam3d.errors import UserError
from fastsam3d.meshes.geometry import face_cross_products, interpolate
from fastsam3d.meshes.mesh import Mesh
from fastsam3d.meshes.nearest import nearest_on_surface

logger = logging.getLogger(__name__)

EXTRA, PURPOSE = "simplify", "reducing the number of faces"
MINIMUM_FACES = 4


def simplify(mesh: Mesh, faces: int) -> Mesh:
    """Reduces a mesh to about `faces` faces by collapsing edges in the order of their quadric error.

    Each vertex takes the colour of the nearest point of the given mesh. A mesh that has no more than `faces` faces is
    returned as it is. Method: Garland and Heckbert, "Surface simplification using quadric error metrics", 1997.

    Raises:
        UserError: fewer than four faces asked for, or a missing package.
    """
    check_faces(faces)
    if faces >= len(mesh.faces):
        return mesh
    vertices, triangles = collapse_edges(mesh.vertices, mesh.faces, faces)
    chosen, weights = nearest_on_surface(vertices, mesh.vertices, mesh.faces, PURPOSE, EXTRA)
    colors = interpolate(mesh.vertex_colors, mesh.faces, chosen, weights).astype(np.float32)
    return Mesh(vertices, triangles, colors)


def check_faces(faces: int) -> None:
    """Checks a wanted number of faces.

    Raises:
        UserError: fewer than four.
    """
    if faces < MINIMUM_FACES:
        raise UserError(f"{faces} faces enclose nothing: ask for at least {MINIMUM_FACES}.")


def collapse_edges(vertices: np.ndarray, triangles: np.ndarray, faces: int) -> tuple[np.ndarray, np.ndarray]:
    """Reduces a surface `[V, 3]`, `[F, 3]` to about `faces` faces; see `simplify`. Returns vertices and faces.

    Raises:
        UserError: too few faces for this object, or a missing package.
    """
    collapse = optional_module("fast_simplification", PURPOSE, EXTRA).simplify
    vertices, triangles = collapse(
        vertices.astype(np.float64), triangles.astype(np.int32), target_count=int(faces), agg=5.0
    )
    vertices, triangles = np.asarray(vertices, dtype=np.float32), np.asarray(triangles, dtype=np.int64)
    if len(triangles) == 0:
        raise UserError(f"{faces} faces are too few for this object. Ask for more.")
    used, triangles = np.unique(triangles, return_inverse=True)
    vertices, triangles = vertices[used], triangles.reshape(-1, 3)
    if len(triangles) > 1.1 * faces:
        logger.warning("the object cannot be brought below %d faces; %d were asked for", len(triangles), faces)
    return vertices, triangles


def close_surface(mesh: Mesh, longest: float | None = None) -> Mesh:
    """Makes a mesh watertight: every edge belongs to two faces, which run along it in opposite directions.

    Vertices at the same place are joined. Faces with two corners at one place are dropped, and faces that would give an
    edge a third face or the wrong direction. A fan of faces around its middle closes each hole; the middle takes the
    mean colour of the rim. A closed mesh is returned as it is. Surfaces may still cut through each other.

    Args:
        mesh: the surface.
        longest: rims that are longer than this stay open; None closes all.
    """
    places, joined = np.unique(mesh.vertices, axis=0, return_inverse=True)
    faces = joined.reshape(-1)[mesh.faces] if len(places) < len(mesh.vertices) else mesh.faces
    vertices, colors = mesh.vertices, mesh.vertex_colors
    if faces is not mesh.faces:
        first = np.full(len(places), -1)
        first[joined.reshape(-1)[::-1]] = np.arange(len(mesh.vertices))[::-1]
        vertices, colors = places, mesh.vertex_colors[first]
    kept = _consistent(faces)
    loops = _holes(faces[kept])
    if longest is not None:
        loops = [loop for loop in loops if _length(vertices[np.array(loop)]) <= longest]
    if not loops and kept.all() and faces is mesh.faces:
        return mesh
    faces = faces[kept]
    middles: list[np.ndarray] = []
    middle_colors: list[np.ndarray] = []
    fans: list[np.ndarray] = []
    for loop in loops:
        rim = np.array(loop)
        middle = len(vertices) + len(middles)
        middles.append(vertices[rim].mean(axis=0))
        middle_colors.append(colors[rim].mean(axis=0))
        # The new faces run along the rim against the old ones.
        fans.append(np.stack([np.roll(rim, -1), rim, np.full(len(rim), middle)], axis=1))
    if middles:
        vertices = np.concatenate([vertices, np.array(middles)])
        colors = np.concatenate([colors, np.array(middle_colors)])
        faces = np.concatenate([faces, *fans])
    used, faces = np.unique(faces, return_inverse=True)
    vertices, colors, faces = vertices[used].astype(np.float32), colors[used].astype(np.float32), faces.reshape(-1, 3)
    if longest is None and signed_volume(vertices, faces) < 0:
        faces = faces[:, ::-1].copy()
    return Mesh(vertices, faces, colors)


def is_watertight(mesh: Mesh) -> bool:
    """Tests whether every directed edge occurs once, and its opposite too. Vertices at the same place count as one."""
    faces = np.unique(mesh.vertices, axis=0, return_inverse=True)[1].reshape(-1)[mesh.faces]
    edges = _directed_edges(faces)
    span = int(faces.max(initial=0)) + 1
    codes = edges[:, 0] * span + edges[:, 1]
    opposite = edges[:, 1] * span + edges[:, 0]
    return len(codes) > 0 and len(np.unique(codes)) == len(codes) and bool(np.isin(opposite, codes).all())


def signed_volume(vertices: np.ndarray, faces: np.ndarray) -> float:
    """Computes the volume that a closed mesh encloses; it is negative if the faces look inward."""
    corners = np.asarray(vertices, dtype=np.float64)[faces]
    middle = corners.mean(axis=(0, 1)) if len(corners) else np.zeros(3)
    return float(((corners[:, 0] - middle) * face_cross_products(vertices, faces)).sum() / 6)


def _length(rim: np.ndarray) -> float:
    return float(np.linalg.norm(rim - np.roll(rim, -1, axis=0), axis=1).sum())


def _directed_edges(faces: np.ndarray) -> np.ndarray:
    return np.stack([faces, np.roll(faces, -1, axis=1)], axis=2).reshape(-1, 2)


def _consistent(faces: np.ndarray) -> np.ndarray:
    """Selects the faces to keep so that no directed edge occurs twice; earlier faces win. Returns a mask `[F]`."""
    kept = (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])
    edges = _directed_edges(faces)
    span = int(faces.max(initial=0)) + 1
    codes = (edges[:, 0] * span + edges[:, 1]).reshape(-1, 3)
    _, index, count = np.unique(codes, return_inverse=True, return_counts=True)
    doubtful = np.flatnonzero((count[index.reshape(-1, 3)] > 1).any(axis=1) & kept)
    kept[doubtful] = False
    taken = set(codes[kept].reshape(-1).tolist())
    for face in doubtful:
        own = codes[face].tolist()
        if not taken.intersection(own):
            taken.update(own)
            kept[face] = True
    return kept


def _holes(faces: np.ndarray) -> list[list[int]]:
    """Finds the rims of the holes: cycles of different vertices along the directed edges that have no opposite."""
    edges = _directed_edges(faces)
    span = int(faces.max(initial=0)) + 1
    single = ~np.isin(edges[:, 1] * span + edges[:, 0], edges[:, 0] * span + edges[:, 1])
    following: defaultdict[int, list[int]] = defaultdict(list)
    for start, end in edges[single].tolist():
        following[start].append(end)
    loops: list[list[int]] = []
    for start in list(following):
        while following[start]:
            path, place = [start], {start: 0}
            # As many edges lead into each vertex as out of it, so the walk goes on until it meets itself.
            while path:
                vertex = following[path[-1]].pop()
                if vertex not in place:
                    place[vertex] = len(path)
                    path.append(vertex)
                    continue
                loop = path[place[vertex] :]
                for passed in loop[1:]:
                    del place[passed]
                path = path[: place[vertex] + 1]
                loops.append(loop)
                if len(path) == 1 and not following[path[0]]:
                    break
    return loops
