"""Shows what a normal map gives back of a fine shape: the full surface, and the finished mesh without and with the map.

    PYTHONPATH=. python benchmarks/finish_normal_map.py --output normal_map.png

The object is a ball with bumps, about 273,000 faces, finished to 5,000. Prints the mean angle between the normals of
points on the finished surface and those of the true surface there.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from fastsam3d.evaluation.metrics.signed_distance import marching_tetrahedra
from fastsam3d.evaluation.metrics.visual import welded
from fastsam3d.meshes.finishing.finishing import finish
from fastsam3d.meshes.geometry import sample_surface
from fastsam3d.meshes.mesh import Mesh, TexturedMesh
from fastsam3d.meshes.turntable import mapped_normals, strip, turntable_frames

RADIUS, BUMPS, HEIGHT = 0.38, 36.0, 0.012
ELEVATION = 15.0


def distance(points: np.ndarray) -> np.ndarray:
    """About the distance to the surface of the bumpy ball, negative inside, `[...]`."""
    return np.linalg.norm(points, axis=-1) - RADIUS - HEIGHT * np.sin(BUMPS * points).prod(axis=-1)


def true_normals(points: np.ndarray) -> np.ndarray:
    """Unit normals of the surface through the points, by differences of the distance."""
    step = 1e-5 * np.eye(3)
    slope = np.stack([distance(points + each) - distance(points - each) for each in step], axis=1)
    return slope / np.linalg.norm(slope, axis=1, keepdims=True)


def angles(mesh: TexturedMesh) -> tuple[float, float]:
    """Mean angle in degrees to the true normals: (with the mesh's own normals, with its normal map)."""
    chosen, weights = sample_surface(mesh.vertices, mesh.faces, 100_000, np.random.default_rng(0))
    corners = mesh.faces[chosen]
    points = (mesh.vertices[corners] * weights[..., None]).sum(axis=1)
    smooth = (mesh.normals[corners] * weights[..., None]).sum(axis=1)
    smooth /= np.linalg.norm(smooth, axis=1, keepdims=True)
    truth = true_normals(points.astype(np.float64))
    both = (smooth, mapped_normals(mesh, corners, weights))
    found = [float(np.degrees(np.arccos(np.clip((each * truth).sum(axis=1), -1, 1))).mean()) for each in both]
    return found[0], found[1]


def main() -> None:
    """Runs from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("normal_map.png"))
    parser.add_argument("--faces", type=int, default=5000)
    parser.add_argument("--resolution", type=int, default=128)
    options = parser.parse_args()
    vertices, faces = welded(*marching_tetrahedra(distance, options.resolution))
    vertices = vertices.astype(np.float32)
    full = Mesh(vertices, faces.astype(np.int64), np.tile(np.float32([0.75, 0.72, 0.68]), (len(vertices), 1)))
    finished = finish(full, faces=options.faces, texture=1024, normal_map=True)
    mesh = finished.mesh
    assert isinstance(mesh, TexturedMesh)
    without, mapped = angles(mesh)
    sys.stdout.write(f"{len(full.faces)} faces to {len(mesh.faces)}; seconds {finished.seconds}\n")
    sys.stdout.write(f"mean angle to the true normals: {without:.2f} degrees without the map, {mapped:.2f} with it\n")
    shown = (full, replace(mesh, normal_map=None), mesh)
    views = [turntable_frames([each], 1, 320, ELEVATION)[0] for each in shown]
    strip(views).save(options.output, optimize=True)


if __name__ == "__main__":
    main()
