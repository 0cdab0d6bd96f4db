"""Receives requests: their parts become a job of the store, or an error with one sentence."""

from __future__ import annotations

import asyncio
from typing import Any

from fastsam3d.cluster.service.accepting import Service
from fastsam3d.cluster.service.guarding import Refused, TooLarge
from fastsam3d.cluster.service.options import ServeOptions, chosen
from fastsam3d.cluster.service.uploads import check_inputs, stored_name
from fastsam3d.errors import UserError

PARTS = {
    "object": {"picture": 1, "mask": 1, "pointmap": 1},
    "scene": {"picture": 1, "masks": 0, "labels": 1, "pointmap": 1},
}
"""Files of a request, and how many of each; 0: as many as the limit of masks."""


def seconds_to_wait(text: str | None, most: float) -> float:
    """Reads the seconds that a request wants to wait for its result, at most `most`.

    Raises:
        Refused: no such number.
    """
    try:
        value = most if text is None else float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 86400:
        raise Refused(400, f"wait={str(text)[:20]} is not possible: give seconds from 0 to {most:g}.")
    return min(value, most)


async def created_job(request: Any, service: Service, kind: str) -> str:
    """Reads a request and makes a job that is not accepted yet.

    Raises:
        Refused: it cannot be used.
    """
    parts, text = await _parts(request, kind, service.options)
    try:
        options = chosen(text, service.options, kind == "scene")
        uploads = []
        for part, files in parts.items():
            uploads += [(stored_name(part, given, n), data) for n, (given, data) in enumerate(files)]
        name = await asyncio.to_thread(service.store.create, kind, options, uploads)
    except UserError as error:
        raise Refused(422, str(error)) from None
    try:
        warnings = await asyncio.to_thread(check_inputs, service.store, name, service.settings, service.options)
        await asyncio.to_thread(service.store.update, name, status="checked", warnings=warnings)
    except UserError as error:
        await asyncio.to_thread(service.store.remove, name)
        raise Refused(422, str(error)) from None
    except BaseException:
        await asyncio.to_thread(service.store.remove, name)
        raise
    return name


async def _parts(
    request: Any, kind: str, options: ServeOptions
) -> tuple[dict[str, list[tuple[str, bytes]]], str | None]:
    """(files by part, the text of `options`) of a multipart request.

    Raises:
        Refused: it is none, or parts are missing, unknown or too many.
    """
    from starlette.exceptions import HTTPException

    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise Refused(415, "send multipart/form-data, as curl -F does.")
    known = PARTS[kind]
    try:
        form = await request.form(max_files=options.masks + 8, max_fields=8, max_part_size=65536)
    except TooLarge:
        raise
    except HTTPException as error:
        raise Refused(400, f"the request cannot be read: {error.detail}") from None
    except Exception as error:  # parsers raise their own kinds on what is no multipart
        raise Refused(400, f"the request cannot be read as multipart/form-data ({type(error).__name__}).") from None
    files: dict[str, list[tuple[str, bytes]]] = {}
    text: str | None = None
    try:
        for part, value in form.multi_items():
            if part == "options" and isinstance(value, str):
                text = value
            elif part in known and not isinstance(value, str):
                files.setdefault(part, []).append((value.filename or "", await value.read()))
            else:
                wanted = ", ".join((*known, "options"))
                raise Refused(422, f"the part {part[:40]!r} is not wanted here, or is no file: give {wanted}.")
    finally:
        await form.close()
    for part, own in files.items():
        most = known[part] or options.masks
        if len(own) > most:
            raise Refused(422, f"{len(own)} files are called {part}: up to {most} are taken.")
    missing = [part for part in ("picture", *(["mask"] if kind == "object" else [])) if part not in files]
    if kind == "scene" and not {"masks", "labels"} & files.keys():
        missing.append("masks")
    if missing:
        raise Refused(422, f"the part {missing[0]} is missing: give it as a file.")
    if {"masks", "labels"} <= files.keys():
        raise Refused(422, "masks and labels were both given: give one of them.")
    return files, text
