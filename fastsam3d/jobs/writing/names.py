"""Names of the files of a run, handed out in one place, so that no file is written twice."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Collection, Sequence

SCENE_FILES = (
    "scene.glb",
    "layout.json",
    "scene_preview.png",
    "scene_turntable.png",
    "scene_turntable.gif",
    "report.json",
)
"""Files of a scene that belong to no object."""
PREVIEW_SUFFIX = "_preview.png"
MASK_SUFFIX = "_mask.png"
TURNTABLE_SUFFIXES = ("_turntable.png", "_turntable.gif")
COMPANIONS = (".mtl", "_texture.png")
"""Files that a textured mesh has beside its own."""
LONGEST = 150
"""Bytes of a name. File systems take 255; suffixes and a temporary file's own are added to it."""


def object_names(wanted: Sequence[str]) -> tuple[list[str], list[str]]:
    """Names of the objects of a scene, so that none of their files has the name of another file of the run.

    The first one keeps its name; others get a number. File names that differ in upper and lower case only are the same.
    Which formats are exported does not matter, so that names are the same in every run.

    Args:
        wanted: the names that the masks ask for.

    Returns:
        (names in the same order, sentences about the objects that got another name than they asked for).
    """
    taken = {_key(name) for name in SCENE_FILES}
    names: list[str | None] = [None] * len(wanted)
    usable = [usable_name(name) for name in wanted]
    # All that can keep their names do, before others get new ones.
    for index, name in enumerate(usable):
        own = {_key(file) for file in _possible_files(name)}
        if not own & taken:
            names[index], taken = name, taken | own
    for index, name in enumerate(usable):
        number = 2
        while names[index] is None:
            candidate = f"{name}_{number}"
            own = {_key(file) for file in _possible_files(candidate)}
            if not own & taken:
                names[index], taken = candidate, taken | own
            number += 1
    final = [str(name) for name in names]
    told = [
        f"the object of the mask {_shown(old)} is called {_shown(new)}: {_reason(old, first)}"
        for old, first, new in zip(wanted, usable, final, strict=True)
        if old != new
    ]
    return final, told


def usable_name(name: str) -> str:
    """The name, or one that a file can have: signs that cannot be shown are replaced, and long names shortened.

    A shortened name ends in a hash of the whole name, so that two of them stay different.
    """
    clean = "".join("_" if unicodedata.category(sign) in ("Cc", "Cs") or sign in "/\\" else sign for sign in name)
    encoded = clean.encode("utf-8")
    if clean == name and len(encoded) <= LONGEST:
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return encoded[: LONGEST - 9].decode("utf-8", "ignore") + f"_{digest}"


def files_of(
    name: str,
    kinds: Collection[str],
    *,
    preview: bool = True,
    turntable: bool = True,
    texture: bool = True,
    placed: bool = True,
    mask: bool = True,
) -> set[str]:
    """Names of all files that an object can get.

    Args:
        kinds: formats that are exported.
        preview, turntable, texture: whether those are wanted.
        placed: whether it belongs to a scene.
        mask: whether its mask was made in the run and is saved.
    """
    from fastsam3d.meshes.formats import written_formats

    files = {f"{name}{end}.{kind}" for kind in kinds for end in ("", "_points")}
    files |= {f"{name}{each.ending}" for each in written_formats() if each.name in kinds}
    files |= {f"{name}_camera.glb"} if placed else set()
    files |= {f"{name}{PREVIEW_SUFFIX}"} if preview else set()
    files |= {f"{name}{MASK_SUFFIX}"} if mask else set()
    files |= {f"{name}{end}" for end in TURNTABLE_SUFFIXES} if turntable else set()
    return files | ({f"{name}{end}" for end in COMPANIONS} if texture else set())


def _possible_files(name: str) -> set[str]:
    from fastsam3d.meshes.formats import written_formats

    # The bare name too: it is the name of a node in the scene's file.
    return files_of(name, [each.name for each in written_formats()]) | {name}


def _key(name: str) -> str:
    """Equal for names that are one file on a system that ignores case and ways to write accents."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _reason(old: str, first: str) -> str:
    if old == first:
        return "another file of the run has that name."
    return "its own name is too long for a file, or has signs that cannot be shown."


def _shown(name: str) -> str:
    text = name.encode("utf-8", "replace").decode("utf-8")
    return text if len(text) <= 60 else f"{text[:40]}...{text[-10:]}"
