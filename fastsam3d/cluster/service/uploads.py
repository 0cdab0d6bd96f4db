"""Checks the files of a request before it becomes a job: sizes first, then with the code of the command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from fastsam3d.basics.picture_files import NeedsHeif, open_image_file
from fastsam3d.cluster.service.options import ServeOptions, with_chosen
from fastsam3d.cluster.service.store import INPUTS, JobStore
from fastsam3d.errors import UserError
from fastsam3d.jobs.listener import ReportedWarnings
from fastsam3d.jobs.pictures import MORE_SUFFIXES, SUFFIXES
from fastsam3d.jobs.request import Request

ARRAY = ".npy"
NAME = "object"
"""Of the result of a job of one object."""


def stored_name(part: str, given: str | None, number: int = 0) -> str:
    """Chooses the name under which an upload is stored: ours, with the suffix of the client's file.

    Args:
        part: `picture`, `mask`, `masks`, `labels` or `pointmap`.
        given: the client's name.
        number: of a mask among several.

    Raises:
        UserError: a kind of file that is not read.
    """
    suffix = PurePosixPath((given or "").replace("\\", "/")).suffix.lower()
    known = {"picture": (*SUFFIXES, *MORE_SUFFIXES), "pointmap": (ARRAY,)}.get(part, (*SUFFIXES, ARRAY))
    if suffix not in known:
        raise UserError(f"the file of {part} ends in {suffix[:12] or 'nothing'}: give one of {', '.join(known)}.")
    return f"masks/{number}{suffix}" if part == "masks" else f"{part}{suffix}"


def request_of(store: JobStore, name: str, base: Request) -> Request:
    """Makes the request of a job.

    Args:
        base: settings of the service.

    Raises:
        UserError: no such job.
    """
    folder, job = store.folder(name), store.job(name)
    inputs = folder / INPUTS
    scene = job["kind"] == "scene"

    def found(part: str) -> str | None:
        return next((str(path) for path in sorted(inputs.glob(f"{part}.*"))), None)

    masks = found("labels") or (str(inputs / "masks") if (inputs / "masks").is_dir() else None)
    return replace(
        with_chosen(base, job["options"]),
        image_path=found("picture"),
        image_dir=None,
        mask_path=None if scene else found("mask"),
        masks=masks if scene else None,
        pointmap=found("pointmap") or "none",
        name=None if scene else NAME,
        output_dir=str(folder / "results"),
        resume=scene,
        warnings=(),
    )


def check_inputs(store: JobStore, name: str, base: Request, options: ServeOptions) -> list[str]:
    """Reads the inputs of a job as the job will read them; returns warnings.

    Raises:
        UserError: something cannot be used, in the words of the command line, without paths of this machine.
    """
    from fastsam3d.jobs.objects import read_object
    from fastsam3d.jobs.scenes import read_scene

    folder = store.folder(name) / INPUTS
    told = ReportedWarnings()
    try:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                _check_pixels(path, options)
        request = request_of(store, name, base)
        if store.job(name)["kind"] == "scene":
            # A small file may hold hundreds of labels, whose masks would fill the memory: they are counted first.
            scene = read_scene(request, told, options.masks)
            if len(scene.masks) > options.masks:
                raise UserError(f"there are {len(scene.masks)} masks: this service takes up to {options.masks}.")
            if all(mask.problem is not None for mask in scene.masks):
                raise UserError(str(scene.masks[0].problem))
        else:
            read_object(request, told)
    except UserError as error:
        raise UserError(without_paths(str(error), folder)) from None
    return [without_paths(text, folder) for text in told.warnings]


def without_paths(text: str, folder: Path) -> str:
    """Replaces the paths of uploads in a message by their names."""
    return text.replace(f"{folder}/", "").replace(str(folder), "the request").replace(str(folder.parent), "the job")


def _check_pixels(path: Path, options: ServeOptions) -> None:
    """Refuses a picture by the size in its head, before its pixels get any memory.

    Raises:
        UserError: too many pixels, or no picture.
    """
    if path.suffix == ARRAY:
        return  # no larger than its file, which is bounded
    try:
        with open_image_file(path) as image:
            width, height = image.size
            pages = getattr(image, "n_frames", 1)
    except NeedsHeif as error:
        raise UserError(f"{path.name} cannot be read: {error}.") from None
    except Image.DecompressionBombError:
        raise UserError(f"{path.name} is too large to be opened safely. Make it smaller.") from None
    except Exception:  # decoders raise many kinds on a damaged file
        raise UserError(f"{path.name} is not an image that can be read; use PNG or JPEG.") from None
    if width * height * pages > options.megapixels * 1e6:
        raise UserError(
            f"{path.name} has {width * height * pages / 1e6:.1f} megapixels: this service takes up to "
            f"{options.megapixels:g}. Make it smaller."
        )


def described(state: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Describes a job as the service shows it."""
    files = {file: f"/v1/jobs/{name}/files/{file}" for file in sorted(state.get("files", {}))}
    known = ("status", "progress", "error", "warnings", "seconds", "objects", "failed_objects")
    return {"id": name, "url": f"/v1/jobs/{name}", **{k: state[k] for k in known if k in state}, "files": files}
