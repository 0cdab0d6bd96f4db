"""`infer`: one masked object of a picture to GLB, PLY, preview and report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastsam3d.cli.console import Console
from fastsam3d.cli.flags import Arguments
from fastsam3d.cli.inputs import (
    Mask,
    Picture,
    choose_mask,
    example_directory,
    read_mask,
    read_picture,
)
from fastsam3d.cli.outputs import OutputFolder
from fastsam3d.cli.pointmaps import pointmap_of
from fastsam3d.cli.running import Clock, accelerated, finish, say, usable_formats
from fastsam3d.cli.settings import Settings, settings_from
from fastsam3d.cli.summary import STAGE_NAMES, describe

if TYPE_CHECKING:
    from fastsam3d.pipeline.reconstruction import Reconstruction


EXAMPLE = "chair"


def run(arguments: Arguments) -> int:
    """Runs the command; returns its exit code.

    Raises:
        UserError: anything that the caller can mend; nothing was written then.
    """
    settings = settings_from(arguments)
    console = Console(arguments.quiet)
    for text in settings.warnings:
        console.warn(text)
    picture = read_picture(settings.image_path or example_directory(EXAMPLE))
    mask = read_mask(settings.mask_path, picture) if settings.mask_path else choose_mask(picture, settings.mask_index)
    pointmap, pointmap_source = pointmap_of(settings, picture, console)
    clock = Clock()
    name = settings.name or f"{picture.name}_{mask.label}"
    with (
        console.logging(),
        OutputFolder(settings.output_dir) as folder,
        console.progress(),
        accelerated(settings, console, clock) as (pipeline, acceleration),
    ):
        with clock.measure("run"):
            result = pipeline.run(
                picture.pixels,
                mask.pixels,
                seed=settings.seed,
                pointmap=pointmap,
                formats=usable_formats(settings, pipeline),
                progress=lambda stage, done, total: console.step(STAGE_NAMES.get(stage, stage), done, total),
            )
        with clock.measure("write"):
            console.step("writing")
            files = write_object(folder, name, result, picture, mask, settings)
        inputs = {"image": picture.path, "mask": mask.path, "pointmap": pointmap_source}
        described = {"name": name} | describe(result) | {"files": files}
        text = finish(arguments, settings, folder, pipeline, acceleration, inputs, [described], clock, console)
    say(text)
    return 0


def write_object(
    folder: OutputFolder, name: str, result: Reconstruction, picture: Picture, mask: Mask, settings: Settings
) -> dict[str, Any]:
    """Writes the files of one object; returns their names by kind.

    Raises:
        UserError: the object has neither faces nor Gaussians.
    """
    from fastsam3d.pipeline.export import export
    from fastsam3d.pipeline.preview import preview_sheet

    files = {}
    if result.mesh is not None:
        files["glb"] = export(result, folder / f"{name}.glb").name
    files["ply"] = export(result, folder / f"{name}.ply").name
    if settings.preview and result.mesh is not None:
        files["preview"] = f"{name}_preview.png"
        preview_sheet(picture.pixels, mask.pixels, result.mesh).save(folder / files["preview"])
    return files | {"ply_holds": "points of the surface" if result.gaussian is None else "Gaussians"}
