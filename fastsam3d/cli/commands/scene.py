"""`scene`: every masked object of a picture, and the scene they form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fastsam3d.cli.console import Console, say
from fastsam3d.cli.flags import Arguments
from fastsam3d.cli.settings import Settings, settings_from
from fastsam3d.errors import UserError
from fastsam3d.jobs.mask_sets import object_name, scene_masks
from fastsam3d.jobs.masks import Mask, doubts
from fastsam3d.jobs.object_files import Written, preparation_of, write_object
from fastsam3d.jobs.output_folder import OutputFolder
from fastsam3d.jobs.pictures import Picture, example_directory, picture_in, read_picture
from fastsam3d.jobs.pointmaps import pointmap_of
from fastsam3d.jobs.report import STAGE_NAMES, describe
from fastsam3d.jobs.running import Clock, accelerated, finish, usable_formats
from fastsam3d.jobs.scene_progress import SceneProgress, conditions_of, mask_hashes

if TYPE_CHECKING:
    import numpy as np

    from fastsam3d.sam3d.scene.composition import Scene, SceneObject

EXAMPLE = "toys"
SCENE, LAYOUT, PREVIEW, TURNTABLE = "scene.glb", "layout.json", "scene_preview.png", "scene"
INTERRUPTED = 130


def run(arguments: Arguments) -> int:
    """Runs the command; returns its exit code: 1 where some objects failed and the others were written.

    Raises:
        UserError: anything that the caller can mend; nothing was written then.
    """
    settings = settings_from(arguments, scene=True)
    console = Console(arguments.quiet)
    for text in settings.warnings:
        console.warn(text)
    picture = _picture(settings)
    masks = scene_masks(picture, settings.masks)
    for mask in masks:
        doubt = None if mask.problem else doubts(mask)
        if mask.problem is not None:
            console.warn(f"{object_name(mask)} is left out: {mask.problem}")
        elif doubt is not None:
            console.warn(doubt)
    preparation_of(settings)
    pointmap, pointmap_source = pointmap_of(settings, picture, console)
    clock = Clock()
    with (
        console.logging(),
        OutputFolder(settings.output_dir) as folder,
        console.progress(),
        accelerated(settings, console, clock) as (pipeline, acceleration),
    ):
        with clock.measure("run"):
            scene, facts, progress = _reconstruct(settings, pipeline, picture, masks, pointmap, folder, console)
        if scene is None:
            return INTERRUPTED
        if not scene.reconstructions:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in list(scene.failures.items())[:3])
            raise UserError(f"none of the {len(masks)} objects could be reconstructed ({reasons}).")
        scene = _with_unusable(scene, masks)
        with clock.measure("write"):
            camera = _camera(picture, pointmap)
            objects = write_scene(folder, scene, picture, masks, settings, camera, console)
        inputs = {"image": picture.path, "masks": [mask.path for mask in masks], "pointmap": pointmap_source}
        fresh = len(scene.reconstructions) - len(facts["resumed"])
        facts["seconds_per_object"] = clock.seconds["run"] / fresh if fresh else None
        facts["objects"], facts["failed"] = len(masks), len(scene.failures)
        text = finish(
            arguments,
            settings,
            folder,
            pipeline,
            acceleration,
            inputs,
            objects,
            clock,
            console,
            {"scene": facts | {"camera": camera}},
        )
    failed = any("error" in item for item in objects)
    if not failed:
        progress.begin()  # nothing is left to be resumed
    say(text)
    return 1 if failed else 0


def _picture(settings: Settings) -> Picture:
    if settings.image_path and settings.image_dir:
        raise UserError("--image_path and --image_dir were both given: give the picture, or the folder that it is in.")
    if settings.image_path:
        return read_picture(settings.image_path)
    return picture_in(settings.image_dir or example_directory(EXAMPLE))


def _reconstruct(
    settings: Settings,
    pipeline: Any,
    picture: Picture,
    masks: Sequence[Mask],
    pointmap: np.ndarray | None,
    folder: OutputFolder,
    console: Console,
) -> tuple[Scene | None, dict[str, Any], SceneProgress]:
    """(the scene, None where it was interrupted with something kept; facts for the report; what is kept)."""
    from fastsam3d.sam3d.scene.reconstruct import reconstruct_scene, suitable_batch

    masks = [mask for mask in masks if mask.problem is None]
    names = [object_name(mask) for mask in masks]
    batch = suitable_batch(pipeline) if settings.batch is None else settings.batch
    progress = SceneProgress(
        settings.output_dir, conditions_of(settings, picture.pixels, pointmap, batch), mask_hashes(names, masks)
    )
    finished = progress.load() if settings.resume else {}
    if not settings.resume and progress.begin():
        console.note("objects of an interrupted run were there; without --resume they are computed again")
    if finished:
        console.note(f"{len(finished)} of {len(masks)} objects are taken from the interrupted run")

    def step(label: str, stage: str, done: int, total: int) -> None:
        group = label.split(", ")
        place = f"object {names.index(group[0]) + 1}/{len(names)}" if len(group) == 1 else f"{len(group)} objects"
        console.step(f"{place}: {STAGE_NAMES.get(stage, stage)}", done, total)

    def keep(item: SceneObject) -> None:
        if item.reconstruction is not None:
            progress.keep(item.name, item.reconstruction)
            folder.keep()

    facts: dict[str, Any] = {"objects": 0, "failed": 0, "batch": batch, "resumed": sorted(finished)}
    try:
        scene = reconstruct_scene(
            pipeline,
            picture.pixels,
            [mask.pixels for mask in masks],
            names=names,
            seed=settings.seed,
            pointmap=pointmap,
            formats=usable_formats(settings, pipeline),
            batch=batch,
            finished=finished,
            on_object=keep,
            progress=step,
        )
    except KeyboardInterrupt:
        if not progress.kept:
            raise
        console.warn(f"interrupted; {progress.kept} of {len(masks)} objects are kept: --resume goes on from there")
        return None, facts, progress
    return scene, facts, progress


def _with_unusable(scene: Scene, masks: Sequence[Mask]) -> Scene:
    """The scene with an entry for every mask, in their order; those of unusable masks say why."""
    from fastsam3d.sam3d.scene.composition import Scene, SceneObject

    found = {item.name: item for item in scene.objects}
    names = [object_name(mask) for mask in masks]
    return Scene(
        tuple(
            found[name] if mask.problem is None else SceneObject(name, error=mask.problem)
            for name, mask in zip(names, masks, strict=True)
        )
    )


def write_scene(
    folder: OutputFolder,
    scene: Scene,
    picture: Picture,
    masks: Sequence[Mask],
    settings: Settings,
    camera: Mapping[str, Any],
    console: Console,
) -> list[dict[str, Any]]:
    """Writes the scene, its layout and preview, and the files of every object; returns their descriptions.

    Raises:
        UserError: no object has anything to write.
    """
    from fastsam3d.sam3d.scene.placement import mask_agreement, placement_sheet

    done = {item.name: item.reconstruction for item in scene.objects if item.reconstruction is not None}
    pixels = {
        item.name: mask.pixels for item, mask in zip(scene.objects, masks, strict=True) if mask.problem is None
    }
    agreement = mask_agreement(done, pixels, camera["field_of_view"])
    objects, written = [], {}
    for item, mask in zip(scene.objects, masks, strict=True):
        entry: dict[str, Any] = {"name": item.name, "mask": mask.path}
        if item.reconstruction is None:
            objects.append(entry | {"error": item.error})
            continue
        console.step(f"writing {item.name}")
        try:
            written[item.name] = _write_placed(folder, item, picture, mask, settings)
        except UserError as error:
            console.warn(f"{item.name}: {error}")
            objects.append(entry | {"error": str(error)})
        else:
            entry |= describe(item.reconstruction) | {"mask_iou": agreement[item.name]}
            objects.append(entry | written[item.name].described())
    console.step("writing the scene")
    folder.write_json(LAYOUT, scene.layout() | {"camera": camera, "scene_frame": _scene_frame()})
    meshes = {name: item.mesh for name, item in written.items() if item.mesh is not None}
    if any(not mesh.is_empty for mesh in meshes.values()):
        scene.export(folder / SCENE, meshes)
        if settings.preview:
            view, all_masks = camera["field_of_view"], list(pixels.values())
            placement_sheet(picture.pixels, scene.reconstructions, all_masks, view).save(folder / PREVIEW)
        if settings.turntable:
            from fastsam3d.meshes.geometry import Z_UP_TO_Y_UP
            from fastsam3d.meshes.turntable import levelled, write_turntable

            up = scene.up()
            placed = levelled(scene.placed_meshes(meshes), None if up is None else up @ Z_UP_TO_Y_UP.T)
            write_turntable(placed, folder.staging, TURNTABLE)
    elif all("error" in item for item in objects):
        raise UserError("no object of the scene has anything to write. Try another seed, or other masks.")
    return objects


def _write_placed(
    folder: OutputFolder, item: SceneObject, picture: Picture, mask: Mask, settings: Settings
) -> Written:
    """The files of an object, and its GLB in the frame of the scene."""
    from fastsam3d.sam3d.scene.composition import export_placed

    assert item.reconstruction is not None
    written = write_object(folder, item.name, item.reconstruction, picture, mask, settings)
    if written.mesh is not None and "glb" in settings.export:
        name = f"{item.name}_camera.glb"
        export_placed(item.name, written.mesh, item.reconstruction.pose, folder / name)
        written.files["glb_camera"] = name
    return written


def _scene_frame() -> str:
    from fastsam3d.sam3d.scene.composition import SCENE_FRAME

    return SCENE_FRAME


def _camera(picture: Picture, pointmap: np.ndarray | None) -> dict[str, Any]:
    """The photo's camera: from the point map by least squares, else assumed."""
    import math

    from fastsam3d.basics.pixels import ASSUMED_FIELD_OF_VIEW
    from fastsam3d.sam3d.scene.placement import field_of_view_of

    height, width = picture.size
    angle = ASSUMED_FIELD_OF_VIEW if pointmap is None else field_of_view_of(pointmap)
    focal = width / 2 / math.tan(math.radians(angle) / 2)
    return {
        "field_of_view": angle,
        "source": "assumed" if pointmap is None else "fitted to the point map",
        "image_size": [width, height],
        "intrinsics": [[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]],
    }
