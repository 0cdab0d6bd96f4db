"""Several objects of one picture as a scene: one frame, one file, one layout."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastsam3d.basics.files import write_atomically
from fastsam3d.basics.paths import user_path
from fastsam3d.errors import UserError
from fastsam3d.meshes.geometry import CAMERA_TO_GLTF, Z_UP_TO_Y_UP, matrix_to_quaternion_xyzw, smallest_turn
from fastsam3d.meshes.gltf import Node, Root, glb_bytes
from fastsam3d.meshes.mesh import Mesh, TexturedMesh
from fastsam3d.meshes.rotations import quaternion_to_matrix
from fastsam3d.sam3d.pipeline.pose import Pose
from fastsam3d.sam3d.pipeline.reconstruction import Reconstruction

FRAME = (
    "camera: x left, y up, z forward; p_camera = (p_object * scale) @ R(rotation_wxyz) + translation, "
    "row vectors; object frame: z up"
)

UNITS = "of the point map; without one, of the distance between the camera and the plane that all objects stand in"
CAMERA_FRAME = "camera, glTF axes: x right, y up, z towards the viewer; x_gltf = -x_camera, z_gltf = -z_camera"
"""Frame of single objects in the camera frame, and of what is below the root node of `scene.glb`."""
SCENE_FRAME = f"level: y up, the camera is the origin; the root node turns up to y; below it {CAMERA_FRAME}"
"""Frame of `scene.glb`."""
ROOT = "scene"
"""Name of the root node of `scene.glb`."""

LEAST_AGREEMENT = 0.5
"""Length of the mean of the objects' z axes below which they have no up in common: each is then 60 degrees off it."""


@dataclass(frozen=True)
class SceneObject:
    """One object: its reconstruction, or why there is none."""

    name: str
    reconstruction: Reconstruction | None = None
    error: str | None = None


@dataclass(frozen=True)
class Scene:
    """The objects of one picture in the order of their masks."""

    objects: tuple[SceneObject, ...]

    @property
    def reconstructions(self) -> list[Reconstruction]:
        """Reconstructions that succeeded."""
        return [item.reconstruction for item in self.objects if item.reconstruction is not None]

    @property
    def failures(self) -> dict[str, str]:
        """Messages of the objects that failed, by name."""
        return {item.name: item.error for item in self.objects if item.error is not None}

    def layout(self) -> dict[str, Any]:
        """Poses and bounding boxes as plain values, for JSON."""
        return {"frame": FRAME, "units": UNITS, "objects": [_layout_entry(item) for item in self.objects]}

    def up(self) -> np.ndarray | None:
        """Finds the direction of up from the objects: the mean of their own z axes, a unit vector `[3]`.

        It is in `CAMERA_FRAME`; None where the axes point in all directions. The camera cannot tell up: it may look
        down on a table.
        """
        axes = [quaternion_to_matrix(item.pose.rotation.double()).numpy()[2] for item in self.reconstructions]
        mean = np.mean(axes, axis=0) if axes else np.zeros(3)
        length = float(np.linalg.norm(mean))
        return None if length < LEAST_AGREEMENT else mean / length @ CAMERA_TO_GLTF

    def levelling(self) -> np.ndarray:
        """Finds the rotation of the root node: the smallest one that takes `up` to y, which acts on columns `[3, 3]`.

        The identity where nothing says what is up, and where up points straight down: no smallest turn is the only one.
        """
        up = self.up()
        turn = None if up is None else smallest_turn(up, np.array([0.0, 1.0, 0.0]))
        return np.eye(3) if turn is None else turn

    def camera_elevation(self) -> float:
        """Degrees that the camera looks down by, in the level frame; below zero it looks up."""
        return math.degrees(math.asin(min(max(float(self.levelling()[1, 2]), -1.0), 1.0)))

    def placed_meshes(self, meshes: Mapping[str, Mesh] | None = None) -> list[Mesh]:
        """Places all meshes in `CAMERA_FRAME`, turned to z up, for the turntable."""
        given = meshes or {}
        turn = CAMERA_TO_GLTF @ Z_UP_TO_Y_UP.T
        placed = []
        for item in self.objects:
            result = item.reconstruction
            mesh = None if result is None else given.get(item.name, result.mesh)
            if result is None or mesh is None or mesh.is_empty:
                continue
            points = result.pose.apply(torch.tensor(mesh.vertices, dtype=torch.float32)).numpy() @ turn
            changes: dict[str, Any] = {"vertices": points.astype(np.float32)}
            if isinstance(mesh, TexturedMesh):
                changes["normals"] = (mesh.normals @ quaternion_to_matrix(result.pose.rotation).numpy() @ turn).astype(
                    np.float32
                )
            placed.append(replace(mesh, **changes))
        return placed

    def glb_bytes(self, meshes: Mapping[str, Mesh] | None = None) -> bytes:
        """All meshes as one `.glb`, a named node each, at their poses, below a root node that levels them.

        The file is level: y is up. Below the root node the frame is the camera's, turned to glTF's axes: x right,
        y up, z towards the viewer. A mesh keeps its own coordinates (y up); its node carries rotation, translation and
        scale. The rotation of the root node is `levelling`. The camera stays the origin.

        Args:
            meshes: by object name, to be written in place of the reconstructed ones (see `export.Preparation`).

        Raises:
            UserError: no object has a mesh.
        """
        given = meshes or {}
        nodes = [
            placed_node(item.name, mesh, result.pose)
            for item in self.objects
            if (result := item.reconstruction) is not None
            and (mesh := given.get(item.name, result.mesh)) is not None
            and not mesh.is_empty
        ]
        if not nodes:
            raise UserError("The scene has no object with a mesh, so there is nothing to write.")
        turn, up = self.levelling(), self.up()
        extras = {"frame": SCENE_FRAME} | ({} if up is None else {"up": (turn @ up).tolist()})
        return glb_bytes(nodes, extras, Root(ROOT, matrix_to_quaternion_xyzw(turn).tolist()))

    def export(self, path: str | Path, meshes: Mapping[str, Mesh] | None = None) -> Path:
        """Writes `glb_bytes`.

        Raises:
            UserError: no object has a mesh, or the path cannot be written.
        """
        return write_atomically(user_path(path), self.glb_bytes(meshes))


def placed_node(name: str, mesh: Mesh, pose: Pose) -> Node:
    """A mesh at its place in the scene's file."""
    return Node(name, mesh, *node_transform(pose))


def export_placed(name: str, mesh: Mesh, pose: Pose, path: str | Path) -> Path:
    """Writes one object as a `.glb` in `CAMERA_FRAME`, at its place below the root node of `scene.glb`.

    Raises:
        UserError: the mesh has no faces, or the path cannot be written.
    """
    if mesh.is_empty:
        raise UserError(f"The mesh for {path} has no faces. Try another seed, or a mask that shows more of the object.")
    return write_atomically(user_path(path), glb_bytes([placed_node(name, mesh, pose)], {"frame": CAMERA_FRAME}))


def node_transform(pose: Pose) -> tuple[list[float], list[float], list[float]]:
    """(rotation (x, y, z, w), translation, scale) of the glTF node of a mesh at a pose.

    The mesh's coordinates are y up and the file's frame is the camera's with x and z reversed, so for columns
    the node is `F (R^T S p + t)` with `p = M p'`, `F = diag(-1, 1, -1)` and `M` the turn from y up to z up.
    """
    rotation = quaternion_to_matrix(pose.rotation.double()).numpy()
    matrix = CAMERA_TO_GLTF @ rotation.T @ Z_UP_TO_Y_UP
    scale = np.abs(pose.scale.double().numpy() @ Z_UP_TO_Y_UP)
    translation = CAMERA_TO_GLTF @ pose.translation.double().numpy()
    return matrix_to_quaternion_xyzw(matrix).tolist(), translation.tolist(), scale.tolist()


def _layout_entry(item: SceneObject) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": item.name}
    if item.reconstruction is None:
        return entry | {"error": item.error}
    result = item.reconstruction
    entry |= {"seed": result.seed} | result.pose.to_dict()
    if result.mesh is not None and not result.mesh.is_empty:
        vertices = torch.tensor(result.mesh.vertices, dtype=torch.float32)
        entry["bounds_object"] = _bounds(vertices)
        entry["bounds_camera"] = _bounds(result.pose.apply(vertices))
    return entry


def _bounds(points: torch.Tensor) -> list[list[float]]:
    return [points.amin(dim=0).tolist(), points.amax(dim=0).tolist()]
