"""The job of a scene: reconstructs every masked object of a picture file; writes objects, scene and a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastsam3d.basics.paths import user_path
from fastsam3d.basics.threads.adaptation import AdaptedThreads
from fastsam3d.errors import UserError
from fastsam3d.jobs.listener import SILENT, Listener, ReportedWarnings
from fastsam3d.jobs.mask_sets import object_name, scene_masks
from fastsam3d.jobs.masks import Mask, doubts
from fastsam3d.jobs.object_files import preparation_of
from fastsam3d.jobs.output_folder import OutputFolder
from fastsam3d.jobs.pictures import Picture, example_directory, picture_in, read_picture
from fastsam3d.jobs.pointmaps import pointmap_of, unknown_depths
from fastsam3d.jobs.reading.marked_masks import marked_masks
from fastsam3d.jobs.report import STAGE_NAMES
from fastsam3d.jobs.request import Request
from fastsam3d.jobs.running import Accelerated, Clock, computing_threads, finish, prepared, usable_formats
from fastsam3d.jobs.scene_completion import completed, completion
from fastsam3d.jobs.scene_files import camera_of, write_scene
from fastsam3d.jobs.scene_progress import FOLDER, SceneProgress, kept_objects, mask_hashes
from fastsam3d.jobs.writing.identity import conditions_of, file_hashes
from fastsam3d.jobs.writing.inputs import ReadFiles, refuse_masks_folder
from fastsam3d.jobs.writing.names import SCENE_FILES, files_of, object_names

if TYPE_CHECKING:
    import numpy as np

    from fastsam3d.sam3d.scene.composition import Scene, SceneObject

EXAMPLE = "toys"


@dataclass(frozen=True)
class SceneResult:
    """Result of the job of one scene.

    Attributes:
        report: the content of `report.json`, as plain values.
        paths: paths of all files.
        failed: names of the objects that could not be reconstructed or written, in the order of the masks.
        complete: all files were there already, and nothing was done.
    """

    report: dict[str, Any]
    paths: list[Path]
    failed: tuple[str, ...]
    complete: bool = False


@dataclass(frozen=True)
class SceneInputs:
    """Checked inputs of a scene.

    Attributes:
        masks: all masks; `Mask.problem` says why a single mask cannot be used.
        names: names of their objects, all different.
        pointmap: fp32 `[H, W, 3]`, or None.
        pointmap_source: a path, or the name of the depth model.
    """

    picture: Picture
    masks: list[Mask]
    names: list[str]
    pointmap: np.ndarray | None
    pointmap_source: str | None

    @property
    def read(self) -> list[Path]:
        """Returns the files that were read."""
        files = [self.picture.path, *(mask.path for mask in self.masks)]
        return [*files, Path(self.pointmap_source)] if self.pointmap_source else files


class SceneInterrupted(KeyboardInterrupt):
    """A scene was interrupted, and its finished objects are kept: the same request with `resume` continues."""


def run_scene(
    request: Request,
    pipeline: Accelerated | None = None,
    listener: Listener = SILENT,
    more: Mapping[str, Any] | None = None,
) -> SceneResult:
    """Reconstructs every masked object, and writes their files, the scene and the report.

    An object that fails does not stop the others.

    Args:
        pipeline: a loaded and accelerated pipeline, for several jobs; None: a pipeline is loaded after the inputs were
            checked.
        listener: gets steps, warnings and notes.
        more: further entries of the report.

    Raises:
        UserError: a problem that the caller can fix. Then nothing was written.
        SceneInterrupted: the run was interrupted after an object was finished.
    """
    told = ReportedWarnings(listener)
    inputs = read_scene(request, told)
    files = planned_files(request, inputs.names)
    ReadFiles(inputs.read).refuse_inside(user_path(request.output_dir) / FOLDER)
    with told.logging(), OutputFolder(request.output_dir, inputs.read, files, told) as folder:
        facts = completion(request, inputs.picture, inputs.pointmap, dict(zip(inputs.names, inputs.masks, strict=True)))
        if request.resume and (there := completed(folder.path, facts)) is not None:
            told.note(f"the scene in {folder.path} is complete, nothing to do")
            return SceneResult(*there, failed=(), complete=True)
        try:
            return _run(request, pipeline, inputs, folder, facts, told, more)
        except KeyboardInterrupt:
            kept = kept_objects(folder.path)
            if folder.published or not kept:
                raise
            told.warn(f"interrupted; {kept} of {len(inputs.masks)} objects are kept: --resume continues")
            raise SceneInterrupted from None


def planned_files(request: Request, names: Sequence[str]) -> set[str]:
    """Returns the names of all files that the scene of a request may write."""
    textured = request.finish or request.texture is not None
    wanted = {
        "preview": request.preview,
        "turntable": request.turntable,
        "texture": textured,
        "mask": request.marks.given,
    }
    return set(SCENE_FILES).union(*(files_of(name, request.export, **wanted) for name in names))


def _run(
    request: Request,
    pipeline: Accelerated | None,
    inputs: SceneInputs,
    folder: OutputFolder,
    made_of: str,
    told: ReportedWarnings,
    more: Mapping[str, Any] | None,
) -> SceneResult:
    clock = Clock()
    picture, masks = inputs.picture, inputs.masks
    with computing_threads(request) as threads, prepared(request, pipeline, told, clock) as (request, running):
        with clock.measure("run"):
            progress, batch = _progress_of(request, running.pipeline, inputs)
            scene, facts = _reconstruct(request, running.pipeline, inputs, folder, told, threads, progress, batch)
        if not scene.reconstructions:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in list(scene.failures.items())[:3])
            raise UserError(f"none of the {len(masks)} objects could be reconstructed ({reasons}).")
        scene = _with_unusable(scene, masks, inputs.names)
        with clock.measure("write"):
            camera = camera_of(picture, inputs.pointmap)
            objects = write_scene(folder, scene, picture, masks, request, camera, told)
        files = {"image": picture.path, "masks": [mask.file for mask in masks], "pointmap": inputs.pointmap_source}
        fresh = len(scene.reconstructions) - len(facts["resumed"])
        facts["seconds_per_object"] = clock.seconds["run"] / fresh if fresh else None
        facts["objects"], facts["failed"] = len(masks), len(scene.failures)
        failed = tuple(item["name"] for item in objects if "error" in item)
        if not failed:
            facts["complete"] = {"made_of": made_of, "files": file_hashes(folder.staged())}
        entries = {"scene": facts | {"camera": camera}} | dict(more or {})
        report, paths = finish(request, folder, running, files, objects, clock, told, threads, entries)
    if not failed:
        progress.begin()  # all objects are done, so nothing is kept for resuming
    return SceneResult(report, paths, failed)


def read_scene(request: Request, listener: Listener, most_masks: int | None = None) -> SceneInputs:
    """Reads and checks the picture, the masks and the point map that a request names.

    Args:
        most_masks: see `fastsam3d.jobs.mask_sets.scene_masks`.

    Raises:
        UserError: no mask can be used; the picture or the named point map cannot be used; or a package for the
            wanted files is missing.
    """
    for text in request.warnings:
        listener.warn(text)
    if not request.layout:
        listener.warn("layout=false changes nothing in a scene: its objects are placed by their layout.")
    picture = _picture(request)
    for text in picture.doubts:
        listener.warn(text)
    refuse_masks_folder(request.output_dir, request.masks)
    if request.marks.given and request.masks:
        raise UserError("--masks and marks (--box, --point, --all) were both given. Give one of them.")
    if request.marks.given:
        masks = marked_masks(request.marks, picture, lambda: request.marker.load(request.device))
    else:
        masks = scene_masks(picture, request.masks, most_masks)
    names, renamed = object_names([object_name(mask) for mask in masks])
    for text in renamed:
        listener.warn(text)
    for name, mask in zip(names, masks, strict=True):
        if mask.problem is not None:
            listener.warn(f"{name} is left out: {mask.problem}")
        for doubt in [] if mask.problem else doubts(mask):
            listener.warn(doubt)
    preparation_of(request)
    pointmap, source = pointmap_of(request, picture, listener)
    for text in unknown_depths(pointmap, [mask for mask in masks if mask.problem is None]):
        listener.warn(text)
    return SceneInputs(picture, masks, names, pointmap, source)


def _picture(request: Request) -> Picture:
    if request.image_path and request.image_dir:
        raise UserError("--image_path and --image_dir were both given: give the picture, or the folder that it is in.")
    if request.image_path:
        return read_picture(request.image_path)
    return picture_in(request.image_dir or example_directory(EXAMPLE))


def _progress_of(request: Request, pipeline: Any, inputs: SceneInputs) -> tuple[SceneProgress, int]:
    """Returns (the kept objects of the scene, the size of its batches)."""
    from fastsam3d.sam3d.scene.reconstruct import suitable_batch

    batch = suitable_batch(pipeline) if request.batch is None else request.batch
    conditions = conditions_of(request, inputs.picture.pixels, inputs.pointmap, batch)
    usable = [(name, mask) for name, mask in zip(inputs.names, inputs.masks, strict=True) if mask.problem is None]
    return SceneProgress(request.output_dir, conditions, mask_hashes(*zip(*usable, strict=True))), batch


def _reconstruct(
    request: Request,
    pipeline: Any,
    inputs: SceneInputs,
    folder: OutputFolder,
    listener: Listener,
    threads: AdaptedThreads,
    progress: SceneProgress,
    batch: int,
) -> tuple[Scene, dict[str, Any]]:
    """Returns (the scene of the usable masks, facts for the report)."""
    from fastsam3d.sam3d.scene.reconstruct import reconstruct_scene

    masks = [mask for mask in inputs.masks if mask.problem is None]
    names = list(progress.masks)
    finished = progress.load() if request.resume else {}
    if not request.resume and progress.begin():
        listener.note("objects of an interrupted run were there; without --resume they are computed again")
    for name in progress.outdated:
        listener.warn(f"{name} of the interrupted run was made of another mask, or is damaged: it is computed again")
    if finished:
        folder.keep()
        listener.note(f"{len(finished)} of {len(masks)} objects are taken from the interrupted run")

    def step(label: str, stage: str, done: int, total: int) -> None:
        group = label.split(", ")
        place = f"object {names.index(group[0]) + 1}/{len(names)}" if len(group) == 1 else f"{len(group)} objects"
        listener.step(f"{place}: {STAGE_NAMES.get(stage, stage)}", done, total)

    def keep(item: SceneObject) -> None:
        if item.reconstruction is not None:
            progress.keep(item.name, item.reconstruction)
            folder.keep()

    scene = reconstruct_scene(
        pipeline,
        inputs.picture.pixels,
        [mask.pixels for mask in masks],
        names=names,
        seed=request.seed,
        pointmap=inputs.pointmap,
        formats=usable_formats(request, pipeline),
        batch=batch,
        finished=finished,
        on_object=keep,
        progress=threads.before(step),
    )
    return scene, {"objects": 0, "failed": 0, "batch": batch, "resumed": sorted(finished)}


def _with_unusable(scene: Scene, masks: Sequence[Mask], names: Sequence[str]) -> Scene:
    """Returns the scene with an entry for every mask, in their order; those of unusable masks say why."""
    from fastsam3d.sam3d.scene.composition import Scene, SceneObject

    found = {item.name: item for item in scene.objects}
    return Scene(
        tuple(
            found[name] if mask.problem is None else SceneObject(name, error=mask.problem)
            for name, mask in zip(names, masks, strict=True)
        )
    )
