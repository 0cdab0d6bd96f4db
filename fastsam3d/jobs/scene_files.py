"""Writes the files of a scene: its objects, the scene as one file, the layout, a preview and a turntable."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fastsam3d.basics.pixels import ASSUMED_FIELD_OF_VIEW
from fastsam3d.errors import UserError
from fastsam3d.jobs.listener import Listener
from fastsam3d.jobs.masks import Mask
from fastsam3d.jobs.object_files import Written, write_object
from fastsam3d.jobs.output_folder import OutputFolder
from fastsam3d.jobs.pictures import Picture
from fastsam3d.jobs.report import describe
from fastsam3d.jobs.request import Request

if TYPE_CHECKING:
    import numpy as np

    from fastsam3d.sam3d.scene.composition import Scene, SceneObject

POINTMAP_UNITS = "of the point map: metres, glTF's unit, if the map is in metres"
PLANE_UNITS = "of the distance between the camera and the plane that the objects stand in; real sizes are not known"
"""Units of poses, and of the files in the camera's frame."""
SCENE, LAYOUT, PREVIEW, TURNTABLE = "scene.glb", "layout.json", "scene_preview.png", "scene"


def write_scene(
    folder: OutputFolder,
    scene: Scene,
    picture: Picture,
    masks: Sequence[Mask],
    request: Request,
    camera: Mapping[str, Any],
    listener: Listener,
) -> list[dict[str, Any]]:
    """Writes the scene, its layout and preview, and the files of every object; returns their descriptions.

    Raises:
        UserError: no object has faces or Gaussians to write.
    """
    from fastsam3d.sam3d.scene.placement import mask_agreement, placement_sheet

    done = {item.name: item.reconstruction for item in scene.objects if item.reconstruction is not None}
    pixels = {item.name: mask.pixels for item, mask in zip(scene.objects, masks, strict=True) if mask.problem is None}
    agreement = mask_agreement(done, pixels, camera["field_of_view"])
    objects, written = [], {}
    for item, mask in zip(scene.objects, masks, strict=True):
        entry: dict[str, Any] = {"name": item.name, "mask": mask.file}
        if mask.marks is not None:
            entry["marked"] = mask.marks
        if item.reconstruction is None:
            objects.append(entry | {"error": item.error})
            continue
        listener.step(f"writing {item.name}")
        try:
            written[item.name] = _write_placed(folder, item, picture, mask, request)
        except UserError as error:
            listener.warn(f"{item.name}: {folder.shown(str(error))}")
            objects.append(entry | {"error": folder.shown(str(error))})
        else:
            entry |= describe(item.reconstruction) | {"mask_iou": agreement[item.name]}
            objects.append(entry | written[item.name].described())
    listener.step("writing the scene")
    folder.write_json(LAYOUT, scene.layout() | {"camera": camera} | _scene_frame(scene))
    meshes = {name: item.mesh for name, item in written.items() if item.mesh is not None}
    if any(not mesh.is_empty for mesh in meshes.values()):
        scene.export(folder / SCENE, meshes)
        if request.preview:
            view, all_masks = camera["field_of_view"], list(pixels.values())
            placement_sheet(picture.pixels, scene.reconstructions, all_masks, view).save(folder / PREVIEW)
        if request.turntable:
            from fastsam3d.meshes.geometry import Z_UP_TO_Y_UP
            from fastsam3d.meshes.turntable import levelled, write_turntable

            up = scene.up()
            placed = levelled(scene.placed_meshes(meshes), None if up is None else up @ Z_UP_TO_Y_UP.T)
            write_turntable(placed, folder.staging, TURNTABLE)
    elif all("error" in item for item in objects):
        raise UserError("no object of the scene has anything to write. Try another seed, or other masks.")
    return objects


def _write_placed(folder: OutputFolder, item: SceneObject, picture: Picture, mask: Mask, request: Request) -> Written:
    """Writes the files of an object, and its GLB in the frame of the scene."""
    from fastsam3d.sam3d.scene.composition import export_placed

    assert item.reconstruction is not None
    written = write_object(folder, item.name, item.reconstruction, picture, mask, request)
    if written.mesh is not None and "glb" in request.export:
        name = f"{item.name}_camera.glb"
        export_placed(item.name, written.mesh, item.reconstruction.pose, folder / name)
        written.files["glb_camera"] = name
    return written


def _scene_frame(scene: Scene) -> dict[str, Any]:
    """Returns the transform from the camera frame of the layout to the level frame of the scene's file."""
    from fastsam3d.meshes.geometry import matrix_to_quaternion_xyzw
    from fastsam3d.sam3d.scene.composition import SCENE_FRAME

    turn = matrix_to_quaternion_xyzw(scene.levelling()).tolist()
    return {"scene_frame": SCENE_FRAME, "scene_root_rotation_xyzw": turn}


def camera_of(picture: Picture, pointmap: np.ndarray | None) -> dict[str, Any]:
    """Returns the photo's camera: fitted to the point map by least squares, or assumed without a point map."""
    height, width = picture.size
    angle = field_of_view(pointmap)
    focal = width / 2 / math.tan(math.radians(angle) / 2)
    return {
        "field_of_view": angle,
        "source": "assumed" if pointmap is None else "fitted to the point map",
        "units": PLANE_UNITS if pointmap is None else POINTMAP_UNITS,
        "image_size": [width, height],
        "intrinsics": [[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]],
    }


def field_of_view(pointmap: np.ndarray | None) -> float:
    """Returns the horizontal field of view, in degrees, of the picture's camera, or of the assumed camera.

    Args:
        pointmap: `[H, W, 3]`, NaN where unknown, or None.
    """
    from fastsam3d.sam3d.scene.placement import field_of_view_of

    return ASSUMED_FIELD_OF_VIEW if pointmap is None else field_of_view_of(pointmap)
