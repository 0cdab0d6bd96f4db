"""`infer`: one masked object of a picture to GLB, PLY, preview and report."""

from __future__ import annotations

from fastsam3d.cli.console import Console, say
from fastsam3d.cli.flags import Arguments
from fastsam3d.cli.settings import settings_from
from fastsam3d.jobs.masks import choose_mask, doubts, read_mask
from fastsam3d.jobs.object_files import preparation_of, write_object
from fastsam3d.jobs.output_folder import OutputFolder
from fastsam3d.jobs.pictures import example_directory, read_picture
from fastsam3d.jobs.pointmaps import pointmap_of
from fastsam3d.jobs.report import STAGE_NAMES, describe
from fastsam3d.jobs.running import Clock, accelerated, finish, usable_formats

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
    if (doubt := doubts(mask)) is not None:
        console.warn(doubt)
    preparation_of(settings)
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
                layout=settings.layout,
                progress=lambda stage, done, total: console.step(STAGE_NAMES.get(stage, stage), done, total),
            )
        with clock.measure("write"):
            console.step("writing")
            written = write_object(folder, name, result, picture, mask, settings)
        inputs = {"image": picture.path, "mask": mask.path, "pointmap": pointmap_source}
        described = {"name": name} | describe(result) | written.described()
        text = finish(arguments, settings, folder, pipeline, acceleration, inputs, [described], clock, console)
    say(text)
    return 0
