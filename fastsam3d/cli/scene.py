"""`scene`: every masked object of a picture, and the scene they form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fastsam3d.cli.console import Console
from fastsam3d.cli.flags import Arguments
from fastsam3d.cli.infer import write_object
from fastsam3d.cli.inputs import Mask, Picture, all_masks, example_directory, picture_in
from fastsam3d.cli.outputs import OutputFolder
from fastsam3d.cli.pointmaps import pointmap_of
from fastsam3d.cli.running import Clock, accelerated, finish, say, usable_formats
from fastsam3d.cli.settings import Settings, settings_from
from fastsam3d.cli.summary import STAGE_NAMES, describe
from fastsam3d.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from fastsam3d.pipeline.scene_composition import Scene

EXAMPLE = "toys"
SCENE, LAYOUT, PREVIEW = "scene.glb", "layout.json", "scene_preview.png"


def run(arguments: Arguments) -> int:
    """Runs the command; returns its exit code: 1 where some objects failed and the others were written.

    Raises:
        UserError: anything that the caller can mend; nothing was written then.
    """
    from fastsam3d.pipeline.scene import reconstruct_scene

    settings = settings_from(arguments)
    console = Console(arguments.quiet)
    for text in settings.warnings:
        console.warn(text)
    picture = picture_in(settings.image_dir or example_directory(EXAMPLE))
    masks = all_masks(picture)
    pointmap, pointmap_source = pointmap_of(settings, picture, console)
    clock = Clock()
    names = [f"object_{mask.label}" for mask in masks]
    with (
        console.logging(),
        OutputFolder(settings.output_dir) as folder,
        console.progress(),
        accelerated(settings, console, clock) as (pipeline, acceleration),
    ):

        def progress(name: str, stage: str, done: int, total: int) -> None:
            position = f"object {names.index(name) + 1}/{len(names)}"
            console.step(f"{position}: {STAGE_NAMES.get(stage, stage)}", done, total)

        with clock.measure("run"):
            scene = reconstruct_scene(
                pipeline,
                picture.pixels,
                [mask.pixels for mask in masks],
                names=names,
                seed=settings.seed,
                pointmap=pointmap,
                formats=usable_formats(settings, pipeline),
                progress=progress,
            )
        if not scene.reconstructions:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in list(scene.failures.items())[:3])
            raise UserError(f"none of the {len(masks)} objects could be reconstructed ({reasons}).")
        with clock.measure("write"):
            objects = write_scene(folder, scene, picture, masks, settings, pointmap, console)
        inputs = {"image": picture.path, "masks": [mask.path for mask in masks], "pointmap": pointmap_source}
        text = finish(arguments, settings, folder, pipeline, acceleration, inputs, objects, clock, console)
    say(text)
    return 1 if any("error" in item for item in objects) else 0


def write_scene(
    folder: OutputFolder,
    scene: Scene,
    picture: Picture,
    masks: Sequence[Mask],
    settings: Settings,
    pointmap: np.ndarray | None,
    console: Console,
) -> list[dict[str, Any]]:
    """Writes the scene, its layout and preview, and the files of every object; returns their descriptions.

    Raises:
        UserError: no object has anything to write.
    """
    objects = []
    for item, mask in zip(scene.objects, masks, strict=True):
        if item.reconstruction is None:
            objects.append({"name": item.name, "mask": mask.path, "error": item.error})
            continue
        console.step(f"writing {item.name}")
        try:
            files = write_object(folder, item.name, item.reconstruction, picture, mask, settings)
        except UserError as error:
            console.warn(f"{item.name}: {error}")
            objects.append({"name": item.name, "mask": mask.path, "error": str(error)})
        else:
            described = describe(item.reconstruction)
            objects.append({"name": item.name, "mask": mask.path} | described | {"files": files})
    console.step("writing the scene")
    folder.write_json(LAYOUT, scene.layout())
    if any(r.mesh is not None and not r.mesh.is_empty for r in scene.reconstructions):
        scene.export(folder / SCENE)
        if settings.preview:
            _preview(scene, picture, pointmap).save(folder / PREVIEW)
    elif all("error" in item for item in objects):
        raise UserError("no object of the scene has anything to write. Try another seed, or other masks.")
    return objects


def _preview(scene: Scene, picture: Picture, pointmap: np.ndarray | None) -> Any:
    from PIL import Image

    from fastsam3d.pipeline.preview import field_of_view_of, overlay

    view = {} if pointmap is None else {"field_of_view": field_of_view_of(pointmap)}
    drawn = overlay(picture.pixels, scene.reconstructions, **view)
    sheet = Image.new("RGB", (2 * drawn.width, drawn.height), "white")
    sheet.paste(Image.fromarray(picture.pixels), (0, 0))
    sheet.paste(drawn, (drawn.width, 0))
    sheet.thumbnail((2400, 1600))
    return sheet
