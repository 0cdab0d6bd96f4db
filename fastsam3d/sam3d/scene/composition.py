"""Several objects of one picture as a scene: one frame, one file, one layout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastsam3d.basics.files import write_atomically
from fastsam3d.errors import UserError
from fastsam3d.meshes.geometry import CAMERA_TO_GLTF, Z_UP_TO_Y_UP, matrix_to_quaternion_xyzw
from fastsam3d.meshes.gltf import Node, glb_bytes
from fastsam3d.meshes.mesh import Mesh, TexturedMesh
from fastsam3d.meshes.rotations import quaternion_to_matrix
from fastsam3d.sam3d.pipeline.pose import Pose
from fastsam3d.sam3d.pipeline.reconstruction import Reconstruction

FRAME = (
    "camera: x left, y up, z forward; p_camera = (p_object * scale) @ R(rotation_wxyz) + translation, "
    "row vectors; object frame: z up"
)

UNITS = "of the point map; without one, of the distance between the camera and the plane that all objects stand in"
SCENE_FRAME = "camera, glTF axes: x right, y up, z towards the viewer; x_gltf = -x_camera, z_gltf = -z_camera"
"""Frame of `scene.glb` and of single objects in the camera frame."""

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

        It is in the frame of `glb_bytes`; None where the axes point in all directions. The camera cannot tell up: it
        may look down on a table.
        """
        axes = [quaternion_to_matrix(item.pose.rotation.double()).numpy()[2] for item in self.reconstructions]
        mean = np.mean(axes, axis=0) if axes else np.zeros(3)
        length = float(np.linalg.norm(mean))
        return None if length < LEAST_AGREEMENT else mean / length @ CAMERA_TO_GLTF

    def placed_meshes(self, meshes: Mapping[str, Mesh] | None = None) -> list[Mesh]:
        """Places all meshes in the frame of `glb_bytes`, turned to z up, for the turntable."""
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
        """All meshes as one `.glb`, a named node each, at their poses.

        The file's frame is the camera's, turned to glTF's axes: x right, y up, z towards the viewer. A mesh
        keeps its own coordinates (y up); its node carries rotation, translation and scale.

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
        up = self.up()
        return glb_bytes(nodes, {"frame": SCENE_FRAME} | ({} if up is None else {"up": up.tolist()}))

    def export(self, path: str | Path, meshes: Mapping[str, Mesh] | None = None) -> Path:
        """Writes `glb_bytes`.

        Raises:
            UserError: no object has a mesh, or the path cannot be written.
        """
        return write_atomically(path, self.glb_bytes(meshes))


def placed_node(name: str, mesh: Mesh, pose: Pose) -> Node:
    """A mesh at its place in the scene's file."""
    return Node(name, mesh, *node_transform(pose))


def export_placed(name: str, mesh: Mesh, pose: Pose, path: str | Path) -> Path:
    """Writes one object as a `.glb` in the frame of `scene.glb`, at its place there.

    Raises:
        UserError: the mesh has no faces, or the path cannot be written.
    """
    if mesh.is_empty:
        raise UserError(f"The mesh for {path} has no faces. Try another seed, or a mask that shows more of the object.")
    return write_atomically(path, glb_bytes([placed_node(name, mesh, pose)], {"frame": SCENE_FRAME}))


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
