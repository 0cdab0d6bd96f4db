"""Several objects of one picture, and the scene they form."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastsam3d.errors import UserError
from fastsam3d.pipeline.files import write_atomically
from fastsam3d.pipeline.geometry import CAMERA_TO_GLTF, Z_UP_TO_Y_UP, matrix_to_quaternion_xyzw
from fastsam3d.pipeline.gltf import Node, glb_bytes
from fastsam3d.pipeline.pipeline import Pipeline
from fastsam3d.pipeline.pose import Pose, quaternion_to_matrix
from fastsam3d.pipeline.reconstruction import Reconstruction

logger = logging.getLogger(__name__)

FRAME = (
    "camera: x left, y up, z forward; p_camera = (p_object * scale) @ R(rotation_wxyz) + translation, "
    "row vectors; object frame: z up"
)


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
        """Those that succeeded."""
        return [item.reconstruction for item in self.objects if item.reconstruction is not None]

    @property
    def failures(self) -> dict[str, str]:
        """Messages of those that failed, by name."""
        return {item.name: item.error for item in self.objects if item.error is not None}

    def layout(self) -> dict[str, Any]:
        """Poses and bounding boxes as plain values, for JSON."""
        return {"frame": FRAME, "objects": [_layout_entry(item) for item in self.objects]}

    def glb_bytes(self) -> bytes:
        """All meshes as one `.glb`, a named node each, at their poses.

        The file's frame is the camera's, turned to glTF's axes: x right, y up, z towards the viewer. A mesh
        keeps its own coordinates (y up); its node carries rotation, translation and scale.

        Raises:
            UserError: no object has a mesh.
        """
        nodes = [
            Node(item.name, result.mesh, *node_transform(result.pose))
            for item in self.objects
            if (result := item.reconstruction) is not None and result.mesh is not None and not result.mesh.is_empty
        ]
        if not nodes:
            raise UserError("The scene has no object with a mesh, so there is nothing to write.")
        return glb_bytes(nodes)

    def export(self, path: str | Path) -> Path:
        """Writes `glb_bytes`.

        Raises:
            UserError: no object has a mesh, or the path cannot be written.
        """
        return write_atomically(path, self.glb_bytes())


def reconstruct_scene(
    pipeline: Pipeline,
    image: Any,
    masks: Sequence[Any],
    *,
    names: Sequence[str] | None = None,
    seed: int = 0,
    pointmap: Any = None,
    formats: Sequence[str] = ("mesh",),
    progress: Callable[[str, str, int, int], None] | None = None,
) -> Scene:
    """Reconstructs every masked object of a picture; one that fails does not stop the others.

    Every object has noise of its own from the same seed, so its result depends neither on the other objects
    nor on their order.

    Args:
        masks: bool `[H, W]` each.
        names: of the objects, all different; default `object_0`, `object_1`, ...
        progress: called with (object name, stage, steps done, steps).

    Raises:
        UserError: no mask, or names that do not fit.
    """
    if len(masks) == 0:
        raise UserError("There is no mask, so there is nothing to reconstruct. Give at least one.")
    labels = [f"object_{index}" for index in range(len(masks))] if names is None else list(names)
    if len(labels) != len(masks) or len(set(labels)) != len(labels):
        raise UserError(f"{len(masks)} masks need as many different names, not {labels}.")
    objects = []
    for label, mask in zip(labels, masks, strict=True):
        report = None if progress is None else _named(progress, label)
        try:
            result = pipeline.run(image, mask, seed=seed, pointmap=pointmap, formats=formats, progress=report)
        except UserError as error:
            logger.warning("%s: %s", label, error)
            objects.append(SceneObject(label, error=str(error)))
        except Exception as error:
            logger.exception("%s failed", label)
            objects.append(SceneObject(label, error=f"{type(error).__name__}: {error}"))
        else:
            objects.append(SceneObject(label, result))
    return Scene(tuple(objects))


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


def _named(progress: Callable[[str, str, int, int], None], label: str) -> Callable[[str, int, int], None]:
    return lambda stage, done, total: progress(label, stage, done, total)


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
