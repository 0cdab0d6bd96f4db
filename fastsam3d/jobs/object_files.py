"""Writes the files of one object: the wanted formats, a preview, a turntable."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from fastsam3d.errors import UserError
from fastsam3d.jobs.masks import Mask
from fastsam3d.jobs.output_folder import OutputFolder
from fastsam3d.jobs.pictures import Picture
from fastsam3d.jobs.request import Request
from fastsam3d.jobs.writing.names import MASK_SUFFIX

if TYPE_CHECKING:
    from fastsam3d.meshes.mesh import Mesh
    from fastsam3d.meshes.writing import Preparation
    from fastsam3d.sam3d.pipeline.reconstruction import Reconstruction


@dataclass(frozen=True)
class Written:
    """Files that were written for one object, with facts about them.

    Attributes:
        files: names by kind.
        mesh: the mesh as it was exported; None without a mesh.
        exported: facts about the exported mesh for the report.
    """

    files: dict[str, Any]
    mesh: Mesh | None
    exported: dict[str, Any]

    def described(self) -> dict[str, Any]:
        """Returns plain values for the object's entry in the report."""
        return {"exported": self.exported, "files": self.files} if self.exported else {"files": self.files}


def write_object(
    folder: OutputFolder, name: str, result: Reconstruction, picture: Picture, mask: Mask, request: Request
) -> Written:
    """Writes the files of one object.

    Raises:
        UserError: the object has neither faces nor Gaussians, or a package that a format needs is missing.
    """
    from fastsam3d.meshes.formats import FACES, GAUSSIANS, POINTS, written_formats
    from fastsam3d.meshes.writing import export_gaussians, export_mesh

    files: dict[str, Any] = {}
    mesh: Mesh | None = None
    exported: dict[str, Any] = {}
    if result.mesh is not None:
        mesh, exported = _finished(result, request) if request.finish else _prepared(result.mesh, request)
    known = {each.name: each for each in written_formats()}
    # Formats that take Gaussians come last; the others stay in the order of the request.
    for kind in sorted(request.export, key=lambda kind: known[kind].encode_gaussians is not None):
        content = known[kind].content(mesh is not None, result.gaussian is not None)
        if content == GAUSSIANS:
            files[kind] = export_gaussians(result.gaussian, folder / f"{name}{known[kind].ending}").name
        elif content == FACES and mesh is not None:
            files[kind] = export_mesh(mesh, folder / f"{name}{known[kind].ending}").name
        elif content == POINTS and result.mesh is not None:
            # Programs for splats do not show plain points, so the name says that these are points. They keep all
            # colours of the reconstructed surface.
            files[kind] = export_mesh(result.mesh, folder / f"{name}_points.{kind}").name
        if content in (GAUSSIANS, POINTS):
            files[f"{kind}_holds"] = content
    sheet = _preview(result, picture, mask, request)
    if sheet is not None:
        files["preview"] = f"{name}_preview.png"
        sheet.save(folder / files["preview"])
    if request.turntable and mesh is not None:
        from fastsam3d.meshes.turntable import write_turntable

        files["turntable"] = [path.name for path in write_turntable([mesh], folder.staging, name)]
    if mask.marks is not None:
        files["mask"] = f"{name}{MASK_SUFFIX}"
        Image.fromarray(mask.pixels.astype(np.uint8) * 255).save(folder / files["mask"])
    if not any(kind in files for kind in request.export):
        have, lack, other = ("Gaussians", "mesh", "mesh") if mesh is None else ("a mesh", "Gaussians", "gaussian")
        usable = [each.name for each in known.values() if each.content(mesh is not None, result.gaussian is not None)]
        raise UserError(
            f"nothing of {name} can be written as {', '.join(request.export)}: there is no {lack}, only {have}. "
            f"Add {' or '.join(usable)} to --export, or {other} to formats."
        )
    return Written(files, mesh, exported)


def _preview(result: Reconstruction, picture: Picture, mask: Mask, request: Request) -> Image.Image | None:
    """Draws the preview of an object; None where none is wanted, or there is nothing to draw."""
    if not request.preview:
        return None
    from fastsam3d.meshes.preview import preview_sheet
    from fastsam3d.meshes.splats.splats import splats_of

    splats = splats_of(result.gaussian) if request.preview_splats and result.gaussian is not None else None
    if result.mesh is None and splats is None:
        return None
    return preview_sheet(picture.pixels, mask.pixels, result.mesh, splats=splats)


def preparation_of(request: Request) -> Preparation:
    """Returns the changes that a request makes to meshes before they are written.

    Raises:
        UserError: a package that a change needs is not installed.
    """
    from fastsam3d.meshes.writing import Preparation

    preparation = Preparation(request.faces, request.watertight, request.texture)
    if request.finish:
        from fastsam3d.meshes.finishing.finishing import FACES, TEXTURE

        preparation = Preparation(request.faces or FACES, request.watertight, request.texture or TEXTURE)
    preparation.check()
    return preparation


def _finished(result: Reconstruction, request: Request) -> tuple[Mesh, dict[str, Any]]:
    from fastsam3d.meshes.finishing.finishing import finish

    wanted = preparation_of(request)
    finished = finish(result, faces=wanted.faces, texture=wanted.texture, watertight=wanted.watertight)
    return finished.mesh, finished.facts | {"seconds": finished.seconds}


def _prepared(mesh: Mesh, request: Request) -> tuple[Mesh, dict[str, Any]]:
    from fastsam3d.meshes.simplification import is_watertight
    from fastsam3d.meshes.writing import Preparation

    preparation = preparation_of(request)
    if preparation == Preparation():
        return mesh, {}
    prepared = preparation.apply(mesh)
    facts: dict[str, Any] = {"faces": len(prepared.faces), "vertices": len(prepared.vertices)}
    if request.watertight:
        facts["watertight"] = is_watertight(prepared)
    if request.texture is not None:
        facts["texture"] = request.texture
    return prepared, facts
