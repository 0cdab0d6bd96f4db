"""Writes the files of a finished comparison into a folder of its own, and all of them into one archive."""

from __future__ import annotations

import secrets
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fastsam3d.app.runs.comparison import Comparison, Run, field_of_view
from fastsam3d.jobs.output_folder import json_text
from fastsam3d.jobs.report import REPORT, describe, versions
from fastsam3d.jobs.scene_files import LAYOUT, SCENE
from fastsam3d.meshes.formats import written_formats
from fastsam3d.sam3d.export import export
from fastsam3d.sam3d.scene.placement import overlay

ARCHIVE = "fastsam3d_result.zip"
OVERLAY = "over_photo.png"


@dataclass(frozen=True)
class ResultFiles:
    """Paths of the files of a comparison.

    Attributes:
        folder: of all of them; its name cannot be guessed.
        shown: by run, the GLB that the viewer shows.
        overlays: by run, the picture with the objects drawn over it.
    """

    folder: Path
    shown: dict[tuple[str, int], Path]
    overlays: dict[tuple[str, int], Path]

    @property
    def archive(self) -> Path:
        """A zip of everything."""
        return self.folder / ARCHIVE

    @property
    def files(self) -> list[Path]:
        """Every file but the archive, in order."""
        return sorted(path for path in self.folder.rglob("*") if path.is_file() and path.name != ARCHIVE)


def new_folder(parent: Path) -> Path:
    """A fresh folder whose name cannot be guessed, readable by this user alone."""
    folder = parent / secrets.token_urlsafe(16)
    folder.mkdir(mode=0o700, parents=True)
    return folder


def write_results(
    parent: Path,
    comparison: Comparison,
    seed: int,
    picture: np.ndarray,
    masks: tuple[np.ndarray, ...],
    pointmap: np.ndarray | None,
    about: Mapping[str, Any],
) -> ResultFiles:
    """Writes meshes, layouts, pictures, masks, the report and an archive of them into a new folder of `parent`.

    Args:
        seed: of the run that is written in every format; runs of other seeds are written as GLB alone.
        about: what the report says beside the runs: model, device, settings.
    """
    result = ResultFiles(new_folder(parent), {}, {})
    try:
        for run in (*comparison.candidates, *comparison.plain.values()):
            _write_run(result, run, run.seed == seed, picture, pointmap)
        (result.folder / "input").mkdir()
        Image.fromarray(picture).save(result.folder / "input" / "image.png")
        for index, mask in enumerate(masks):
            Image.fromarray(mask).convert("L").save(result.folder / "input" / f"{index}.png")
        report = dict(about) | {"versions": versions(), "best_seed": comparison.candidates[comparison.best].seed}
        report["runs"] = [_described(run) for run in (*comparison.candidates, *comparison.plain.values())]
        (result.folder / REPORT).write_text(json_text(report), encoding="utf-8")
        files = result.files
        # GLB and PNG are packed already; the archive is for taking everything at once.
        with zipfile.ZipFile(result.archive, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for path in files:
                archive.write(path, path.relative_to(result.folder))
    except BaseException:
        shutil.rmtree(result.folder, ignore_errors=True)
        raise
    return result


def _write_run(result: ResultFiles, run: Run, whole: bool, picture: np.ndarray, pointmap: np.ndarray | None) -> None:
    key = (run.preset, run.seed)
    folder = result.folder / f"{run.preset}_seed_{run.seed}"
    folder.mkdir()
    meshes = []
    for item in run.scene.objects:
        reconstruction = item.reconstruction
        if reconstruction is None:
            continue
        has_mesh = reconstruction.mesh is not None and not reconstruction.mesh.is_empty
        has_gaussians = reconstruction.gaussian is not None
        suffixes = {each.ending for each in written_formats() if each.content(has_mesh, has_gaussians)}
        for suffix in sorted(suffixes if whole else suffixes & {".glb"}):
            path = export(reconstruction, folder / f"{item.name}{suffix}")
            meshes += [path] if suffix == ".glb" else []
    if meshes:
        scene = run.scene.export(folder / SCENE)
        # One object is shown upright in its own frame; several as they stand in the picture.
        result.shown[key] = meshes[0] if len(meshes) == 1 else scene
    (folder / LAYOUT).write_text(json_text(run.scene.layout()), encoding="utf-8")
    path = folder / OVERLAY
    overlay(picture, run.scene.reconstructions, field_of_view(pointmap)).save(path)
    result.overlays[key] = path


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
