"""The job of one object: reconstructs a masked object of a picture file; writes its files and a report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastsam3d.errors import UserError
from fastsam3d.jobs.listener import SILENT, Listener, ReportedWarnings
from fastsam3d.jobs.masks import Mask, choose_mask, doubts, read_mask
from fastsam3d.jobs.object_files import preparation_of, write_object
from fastsam3d.jobs.output_folder import OutputFolder
from fastsam3d.jobs.pictures import Picture, example_directory, read_picture
from fastsam3d.jobs.pointmaps import pointmap_of, unknown_depths
from fastsam3d.jobs.reading.marked_masks import marked_mask
from fastsam3d.jobs.report import REPORT, STAGE_NAMES, describe
from fastsam3d.jobs.request import Request
from fastsam3d.jobs.running import Accelerated, Clock, computing_threads, finish, prepared, usable_formats
from fastsam3d.jobs.scene_files import camera_of
from fastsam3d.jobs.writing.names import files_of, usable_name

if TYPE_CHECKING:
    import numpy as np

EXAMPLE = "chair"


@dataclass(frozen=True)
class ObjectResult:
    """Result of the job of one object.

    Attributes:
        name: name of the object and its files.
        report: the content of `report.json`, as plain values.
        paths: paths of all files.
    """

    name: str
    report: dict[str, Any]
    paths: list[Path]


@dataclass(frozen=True)
class ObjectInputs:
    """Checked inputs of one object.

    Attributes:
        pointmap: fp32 `[H, W, 3]`, or None.
        pointmap_source: a path, or the name of the depth model.
    """

    picture: Picture
    mask: Mask
    pointmap: np.ndarray | None
    pointmap_source: str | None

    @property
    def read(self) -> list[Path]:
        """Returns the files that were read."""
        files = [self.picture.path, self.mask.path]
        return [*files, Path(self.pointmap_source)] if self.pointmap_source else files


def run_object(
    request: Request,
    pipeline: Accelerated | None = None,
    listener: Listener = SILENT,
    more: Mapping[str, Any] | None = None,
) -> ObjectResult:
    """Reconstructs one masked object, and writes its files and the report.

    Args:
        pipeline: a loaded and accelerated pipeline, for several jobs; None: a pipeline is loaded after the inputs were
            checked.
        listener: gets steps, warnings and notes.
        more: further entries of the report.

    Raises:
        UserError: a problem that the caller can fix. Then nothing was written.
    """
    told = ReportedWarnings(listener)
    inputs = read_object(request, told)
    picture, mask = inputs.picture, inputs.mask
    wanted = request.name or f"{picture.name}_{mask.label}"
    name = usable_name(wanted)
    if name != wanted:
        told.warn(f"the object is called {name}: its own name is too long, or has signs that cannot be shown")
    files = {REPORT} | files_of(
        name,
        request.export,
        preview=request.preview,
        turntable=request.turntable,
        texture=request.texture is not None or request.finish,
        placed=False,
        mask=request.marks.given,
    )
    clock = Clock()
    with (
        told.logging(),
        OutputFolder(request.output_dir, inputs.read, files, told) as folder,
        computing_threads(request) as threads,
        prepared(request, pipeline, told, clock) as (request, running),
    ):
        with clock.measure("run"):
            threads.look()
            result = running.pipeline.run(
                picture.pixels,
                mask.pixels,
                seed=request.seed,
                pointmap=inputs.pointmap,
                formats=usable_formats(request, running.pipeline),
                layout=request.layout,
                progress=threads.before(
                    lambda stage, done, total: told.step(STAGE_NAMES.get(stage, stage), done, total)
                ),
            )
        with clock.measure("write"):
            told.step("writing")
            written = write_object(folder, name, result, picture, mask, request)
        sources = {"image": picture.path, "mask": mask.file, "pointmap": inputs.pointmap_source}
        marked = {"marked": mask.marks} if mask.marks is not None else {}
        described = {"name": name} | marked | describe(result) | written.described()
        entries = {"camera": camera_of(picture, inputs.pointmap)} | dict(more or {})
        report, paths = finish(request, folder, running, sources, [described], clock, told, threads, entries)
    return ObjectResult(name, report, paths)


def read_object(request: Request, listener: Listener) -> ObjectInputs:
    """Reads and checks the picture, the mask and the point map that a request names.

    Raises:
        UserError: one of them is missing or cannot be used, or a package for the wanted files is missing.
    """
    for text in request.warnings:
        listener.warn(text)
    picture = read_picture(request.image_path or example_directory(EXAMPLE))
    for text in picture.doubts:
        listener.warn(text)
    mask = _mask_of(request, picture)
    for doubt in doubts(mask):
        listener.warn(doubt)
    preparation_of(request)
    pointmap, source = pointmap_of(request, picture, listener)
    for text in unknown_depths(pointmap, [mask]):
        listener.warn(text)
    return ObjectInputs(picture, mask, pointmap, source)


def _mask_of(request: Request, picture: Picture) -> Mask:
    if request.marks.given:
        if request.mask_path:
            raise UserError("--mask_path and marks (--box, --point, --all) were both given. Give one of them.")
        return marked_mask(request.marks, picture, request.mask_index, lambda: request.marker.load(request.device))
    return read_mask(request.mask_path, picture) if request.mask_path else choose_mask(picture, request.mask_index)
