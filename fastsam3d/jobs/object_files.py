"""The files of one object: the formats that were asked for, a preview, a turntable."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastsam3d.errors import UserError
from fastsam3d.jobs.masks import Mask
from fastsam3d.jobs.output_folder import OutputFolder
from fastsam3d.jobs.pictures import Picture
from fastsam3d.jobs.request import Request

if TYPE_CHECKING:
    from fastsam3d.meshes.mesh import Mesh
    from fastsam3d.meshes.writing import Preparation
    from fastsam3d.sam3d.pipeline.reconstruction import Reconstruction


@dataclass(frozen=True)
class Written:
    """What was written of one object.

    Attributes:
        files: names by kind.
        mesh: as it was exported; None without one.
        exported: facts about it for the report.
    """

    files: dict[str, Any]
    mesh: Mesh | None
    exported: dict[str, Any]

    def described(self) -> dict[str, Any]:
        """For the object's entry in the report."""
        return {"exported": self.exported, "files": self.files} if self.exported else {"files": self.files}


def write_object(
    folder: OutputFolder, name: str, result: Reconstruction, picture: Picture, mask: Mask, request: Request
) -> Written:
    """Writes the files of one object.

    Raises:
        UserError: the object has neither faces nor Gaussians, or a package that a format needs is missing.
    """
    from fastsam3d.meshes.preview import preview_sheet
    from fastsam3d.meshes.writing import AXES, export_gaussians, export_mesh

    files: dict[str, Any] = {}
    mesh: Mesh | None = None
    exported: dict[str, Any] = {}
    if result.mesh is not None:
        mesh, exported = _prepared(result.mesh, request)
        for kind in request.export:
            if kind != "ply":
                files[kind] = export_mesh(mesh, folder / f"{name}.{kind}").name
    if "ply" in request.export:
        if result.gaussian is not None:
            files["ply"] = export_gaussians(result.gaussian, folder / f"{name}.ply").name
            files["ply_holds"] = "Gaussians"
        elif result.mesh is not None:
            # Programs for splats show such a file as nothing; its name says what it is.
            files["ply"] = export_mesh(result.mesh, folder / f"{name}_points.ply").name
            files["ply_holds"] = "points of the surface"
    if result.mesh is not None:
        if request.preview:
            files["preview"] = f"{name}_preview.png"
            preview_sheet(picture.pixels, mask.pixels, result.mesh).save(folder / files["preview"])
        if request.turntable and mesh is not None:
            from fastsam3d.meshes.turntable import write_turntable

            files["turntable"] = [path.name for path in write_turntable([mesh], folder.staging, name)]
    if not any(kind in files for kind in AXES):
        raise UserError(
            f"nothing of {name} can be written as {', '.join(request.export)}: there is no mesh, only Gaussians. "
            "Add ply to --export, or mesh to formats."
        )
    return Written(files, mesh, exported)


def preparation_of(request: Request) -> Preparation:
    """What a request does to meshes before they are written.

    Raises:
        UserError: a package that this needs is not installed.
    """
    from fastsam3d.meshes.writing import Preparation

    preparation = Preparation(request.faces, request.watertight, request.texture)
    preparation.check()
    return preparation


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
