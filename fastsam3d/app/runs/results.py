"""Writes the files of a finished comparison into a folder of its own, and all of them into one archive."""

from __future__ import annotations

import secrets
import shutil
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from fastsam3d.app.runs.comparison import Comparison, ComparisonRequest, Run
from fastsam3d.jobs.output_folder import json_text
from fastsam3d.jobs.report import REPORT, describe, versions
from fastsam3d.jobs.scene_files import LAYOUT, SCENE, field_of_view
from fastsam3d.meshes.formats import GAUSSIANS, POINTS, written_formats
from fastsam3d.meshes.mesh import Mesh
from fastsam3d.meshes.writing import Preparation, export_gaussians, export_mesh
from fastsam3d.sam3d.pipeline.reconstruction import Reconstruction
from fastsam3d.sam3d.scene.placement import overlay

ARCHIVE = "fastsam3d_result.zip"
OVERLAY = "over_photo.png"


@dataclass(frozen=True)
class ResultFiles:
    """Paths of the files of a comparison.

    Attributes:
        folder: folder of all files; its name cannot be guessed.
        shown: the GLB that the viewer shows, by run.
        overlays: the picture with the objects drawn over it, by run.
    """

    folder: Path
    shown: dict[tuple[str, int], Path]
    overlays: dict[tuple[str, int], Path]

    @property
    def archive(self) -> Path:
        """Returns the path of a zip file with all files."""
        return self.folder / ARCHIVE

    @property
    def photo(self) -> Path:
        """Returns the path of the picture that shows the objects."""
        return self.folder / "input" / "image.png"

    @property
    def files(self) -> list[Path]:
        """Returns every file but the archive, in order."""
        return sorted(path for path in self.folder.rglob("*") if path.is_file() and path.name != ARCHIVE)


def new_folder(parent: Path) -> Path:
    """Makes a new folder whose name cannot be guessed, readable by this user only."""
    folder = parent / secrets.token_urlsafe(16)
    folder.mkdir(mode=0o700, parents=True)
    return folder


def write_results(
    parent: Path,
    comparison: Comparison,
    seed: int,
    request: ComparisonRequest,
    about: Mapping[str, Any],
    step: Callable[[], None] = lambda: None,
) -> ResultFiles:
    """Writes meshes, layouts, pictures, masks, the report and an archive of them into a new folder of `parent`.

    Args:
        seed: seed of the run that is written in every format; other runs are written as GLB only.
        about: further entries of the report: model, device, settings.
        step: called before each run is written; may raise to stop.

    Raises:
        UserError: a mesh cannot be changed as requested. Then no file is left.
    """
    result = ResultFiles(new_folder(parent), {}, {})
    try:
        for run in (*comparison.candidates, *comparison.plain.values()):
            step()
            _write_run(result, run, run.seed == seed, request)
        (result.folder / "input").mkdir()
        Image.fromarray(request.picture).save(result.photo)
        for index, mask in enumerate(request.masks):
            Image.fromarray(mask).convert("L").save(result.folder / "input" / f"{index}.png")
        report = dict(about) | {"versions": versions(), "best_seed": comparison.candidates[comparison.best].seed}
        report["runs"] = [_described(run) for run in (*comparison.candidates, *comparison.plain.values())]
        (result.folder / REPORT).write_text(json_text(report), encoding="utf-8")
        files = result.files
        # GLB and PNG are compressed already; the archive only collects the files.
        with zipfile.ZipFile(result.archive, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for path in files:
                archive.write(path, path.relative_to(result.folder))
    except BaseException:
        shutil.rmtree(result.folder, ignore_errors=True)
        raise
    return result


def _write_run(result: ResultFiles, run: Run, whole: bool, request: ComparisonRequest) -> None:
    key = (run.preset, run.seed)
    folder = result.folder / f"{run.preset}_seed_{run.seed}"
    folder.mkdir()
    meshes: dict[str, Mesh] = {}
    for item in run.scene.objects:
        if item.reconstruction is not None:
            _write_object(folder, item.name, item.reconstruction, whole, request.preparation, meshes)
    if meshes:
        scene = run.scene.export(folder / SCENE, meshes)
        # One object is shown upright in its own frame; several are shown as in the picture.
        result.shown[key] = folder / f"{next(iter(meshes))}.glb" if len(meshes) == 1 else scene
    (folder / LAYOUT).write_text(json_text(run.scene.layout()), encoding="utf-8")
    path = folder / OVERLAY
    overlay(request.picture, run.scene.reconstructions, field_of_view(request.pointmap)).save(path)
    result.overlays[key] = path


def _write_object(
    folder: Path, name: str, found: Reconstruction, whole: bool, preparation: Preparation, meshes: dict[str, Mesh]
) -> None:
    """Writes the files of one object, and adds its mesh as it was written to `meshes`."""
    mesh = None if found.mesh is None or found.mesh.is_empty else preparation.apply(found.mesh)
    if mesh is not None:
        meshes[name] = mesh
    for each in written_formats():
        content = each.content(mesh is not None, found.gaussian is not None)
        if content is None or (not whole and each.ending != ".glb"):
            continue
        path = folder / f"{name}{each.ending}"
        if content == GAUSSIANS:
            export_gaussians(found.gaussian, path)
        elif mesh is not None and found.mesh is not None:
            # Points are for programs that read no faces. They keep all colours of the reconstructed surface.
            export_mesh(found.mesh if content == POINTS else mesh, path)


def _described(run: Run) -> dict[str, Any]:
    objects = []
    for item in run.scene.objects:
        found = item.reconstruction
        objects.append({"name": item.name} | ({"error": item.error} if found is None else describe(found)))
    return {
        "preset": run.preset,
        "seed": run.seed,
        "seconds": run.seconds,
        "agreement_with_masks": run.agreement,
        "objects": objects,
        "acceleration": run.report.to_dict(),
        "warnings": list(run.warnings),
    }
