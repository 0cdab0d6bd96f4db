"""Finds the items of a batch: in a folder of photo folders, by a pattern, or in a manifest."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

from fastsam3d.basics.paths import user_path
from fastsam3d.cluster.batch.items import Item, refuse_doubles
from fastsam3d.cluster.batch.manifest import KINDS, read_manifest
from fastsam3d.cluster.batch.places import is_remote, place_of, split_address, without_file_scheme
from fastsam3d.errors import UserError

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".heif")
MASKS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".npy")
GLOB = re.compile(r"[*?\[]")
IMAGE, LABELS, POINTMAP = "image", "labels", "pointmap.npy"


def read_items(source: str) -> tuple[list[Item], list[str]]:
    """Finds the items of a batch, sorted by name; of a manifest in its own order.

    Args:
        source: a folder of photo folders (each with `image.png` and its masks), one photo folder, a pattern of folders
            or pictures, or a manifest; a path or an address.

    Returns:
        (the items, warnings).

    Raises:
        UserError: there is no item, or an input cannot be used.
    """
    source = without_file_scheme(source)
    suffix = PurePosixPath(source).suffix.lower()
    if suffix in KINDS:
        items = read_manifest(source, suffix)
    elif _is_pattern(source):
        items = _matching(source)
    else:
        items = _folders(source)
    refuse_doubles(items)
    bare = [item.name for item in items if item.scene and not item.masks and not _has_masks(item)]
    doubts = []
    if bare:
        more = f" and {len(bare) - 1} more" if len(bare) > 1 else ""
        doubts.append(f"there is no mask beside the picture of {bare[0]}{more}: that will fail.")
    return items, doubts


def _is_pattern(source: str) -> bool:
    """Tells whether a source is a pattern. A folder may have a bracket in its name, such as `trip [2026]`."""
    return GLOB.search(source) is not None and (is_remote(source) or not user_path(source).is_dir())


def _has_masks(item: Item) -> bool:
    return any(not name.endswith(f"/{POINTMAP}") for name in item.beside)


def _folders(source: str) -> list[Item]:
    if not is_remote(source) and not user_path(source).is_dir():
        kinds = ", ".join(KINDS)
        raise UserError(
            f"input={source} is no folder and no manifest ({kinds}). Give a folder of photo folders, a pattern, or a "
            "manifest."
        )
    place = place_of(source)
    items = _photos(place.address, place.files())
    if not items:
        raise UserError(f"no photo folder in {source}: each has image.png and its masks 0.png, 1.png, ...")
    return items


def _photos(address: str, files: Mapping[str, str]) -> list[Item]:
    """An item for every folder with a picture that is called `image`."""
    folders: dict[str, list[str]] = {}
    for name in files:
        folder, _, last = name.rpartition("/")
        folders.setdefault(folder, []).append(last)
    items = []
    for folder in sorted(folders):
        names = sorted(folders[folder])
        # Cameras write suffixes in capitals too.
        picture = next((name for end in PICTURES for name in names if _is_called(name, f"{IMAGE}{end}")), None)
        if picture is None:
            continue
        at = f"{folder}/" if folder else ""
        beside = [name for name in names if name == POINTMAP or _is_mask(name, picture)]
        name = folder.replace("/", "_") or _folder_name(address)
        stamp = ";".join(f"{own}={files[at + own]}" for own in (picture, *beside))
        found = tuple(f"{address}/{at}{own}" for own in beside)
        items.append(Item(name, f"{address}/{at}{picture}", beside=found, stamp=stamp))
    return items


def _is_called(name: str, wanted: str) -> bool:
    """Tells whether a file has the wanted name, whether its suffix is in capitals or not."""
    stem, _, end = name.rpartition(".")
    return f"{stem}.{end.lower()}" == wanted


def _folder_name(address: str) -> str:
    """The last part of an address; of a path such as `.`, the name of the folder that it means."""
    return split_address(address if is_remote(address) else str(user_path(address).resolve()))[1]


def _is_mask(name: str, picture: str) -> bool:
    stem, _, end = name.rpartition(".")
    return f".{end.lower()}" in MASKS and name != picture and (stem == LABELS or (stem.isascii() and stem.isdigit()))


def _matching(source: str) -> list[Item]:
    """Items of a pattern: folders that it matches, and pictures."""
    start = GLOB.search(source)
    assert start is not None
    base = source[: start.start()].rpartition("/")[0] or ("/" if source.startswith("/") else ".")
    pattern = source[len(base) :].lstrip("/") if base != "." or source.startswith("./") else source
    place = place_of(base)
    files = place.files()
    try:
        found = re.compile(_expression(pattern))
    except re.error as error:
        raise UserError(f"input={source} is not a pattern that can be used ({error}). Check its brackets.") from None
    folders = {parent for name in files for parent in _parents(name) if found.fullmatch(parent)}
    inside = {name: stamp for name, stamp in files.items() if folders & set(_parents(name))}
    items = _photos(place.address, inside)
    names = [name for name in files if name not in inside and found.fullmatch(name)]
    items += [_single(place.address, name, files) for name in sorted(names) if _is_picture(name)]
    if not items:
        raise UserError(f"input={source} matches no photo folder and no picture. Put the pattern in quotes.")
    return items


def _is_picture(name: str) -> bool:
    path = PurePosixPath(name)
    marked = path.stem.endswith(("_mask", "_labels"))
    return path.suffix.lower() in PICTURES and not marked


def _single(address: str, name: str, files: Mapping[str, str]) -> Item:
    """A picture with its mask `STEM_mask.*`, or its label image `STEM_labels.*`."""
    path = PurePosixPath(name)
    at = "" if str(path.parent) == "." else f"{path.parent}/"
    stem = path.stem
    if stem == IMAGE:
        (item,) = _photos(address, {n: s for n, s in files.items() if n.rpartition("/")[0] == at.rstrip("/")})
        return item
    for kind in ("mask", "labels"):
        for end in MASKS:
            beside = f"{at}{stem}_{kind}{end}"
            if beside in files:
                stamp = f"{files[name]};{files[beside]}"
                where, image = f"{address}/{beside}", f"{address}/{name}"
                own = (at + stem).replace("/", "_")
                if kind == "mask":
                    return Item(own, image, mask=where, stamp=stamp)
                return Item(own, image, masks=(where,), stamp=stamp)
    raise UserError(
        f"no mask for {address}/{name}: put {stem}_mask.png or {stem}_labels.png beside it, or write a manifest."
    )


def _parents(name: str) -> Iterable[str]:
    while "/" in name:
        name = name.rpartition("/")[0]
        yield name


def _expression(pattern: str) -> str:
    """A pattern of paths as a regular expression: `*` and `?` stay in a folder, `**/` is any number of folders."""
    parts = re.split(r"(\*\*/|\*|\?|\[[^\]]*\])", pattern.rstrip("/"))
    known = {"**/": "(?:[^/]+/)*", "*": "[^/]*", "?": "[^/]"}
    return "".join(
        known.get(part, part.replace("[!", "[^", 1) if part.startswith("[") and part.endswith("]") else re.escape(part))
        for part in parts
    )
