"""Fetches remote files of items while earlier items are computed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from fastsam3d.basics.paths import user_path
from fastsam3d.basics.processes.temporary import own_folder
from fastsam3d.cluster.batch.items import Item
from fastsam3d.cluster.batch.places import is_remote, place_of, split_address
from fastsam3d.errors import UserError

PREFIX = "fastsam3d-batch-"


@dataclass(frozen=True)
class Fetched:
    """An item with the bytes of its remote files by address; for a file that cannot be fetched, the reason."""

    item: Item
    files: Mapping[str, bytes] = field(default_factory=dict)
    problem: str | None = None


@dataclass(frozen=True)
class Inputs:
    """Where the files of an item are on this machine, as settings of its job.

    Attributes:
        masks: a folder of masks, one file, or None: beside the picture.
    """

    image: Path
    mask: Path | None
    masks: Path | None
    pointmap: str | None


def fetch(item: Item) -> Fetched:
    """Reads the remote files of an item. The job reads the local ones."""
    files = {}
    try:
        for address in item.addresses:
            if is_remote(address):
                folder, name = split_address(address)
                files[address] = place_of(folder).read(name)
    except UserError as error:
        return Fetched(item, problem=str(error))
    return Fetched(item, files)


def needs_fetching(item: Item) -> bool:
    """Tells whether a file of an item is remote."""
    return any(is_remote(address) for address in item.addresses)


@contextmanager
def inputs_of(fetched: Fetched) -> Iterator[Inputs]:
    """Gives the files of an item as files of this machine. Temporary copies are removed at the end.

    Raises:
        UserError: a file could not be fetched.
    """
    item = fetched.item
    if fetched.problem is not None:
        raise UserError(fetched.problem)
    if not needs_fetching(item) and len(item.masks) < 2:
        mask = None if item.mask is None else user_path(item.mask)
        masks = user_path(item.masks[0]) if item.masks else None
        yield Inputs(user_path(item.image), mask, masks, item.pointmap)
        return
    with own_folder(PREFIX) as folder:
        yield _put_together(fetched, folder)


def _put_together(fetched: Fetched, folder: Path) -> Inputs:
    item = fetched.item

    def put(address: str, under: str, name: str | None = None) -> Path:
        path = folder / under / (name or split_address(address)[1])
        path.parent.mkdir(exist_ok=True)
        if address in fetched.files:
            path.write_bytes(fetched.files[address])
        elif user_path(address).is_dir():
            return user_path(address)
        else:
            try:
                shutil.copyfile(user_path(address), path)
            except OSError as error:
                raise UserError(f"{address} cannot be read ({error.strerror or error}). Check the path.") from None
        return path

    image = put(item.image, "picture")
    for address in item.beside:
        put(address, "picture")
    mask = None if item.mask is None else put(item.mask, "mask")
    masks: Path | None = None
    if len(item.masks) == 1:
        masks = put(item.masks[0], "masks")
    elif item.masks:
        for address, name in zip(item.masks, _different(item.masks), strict=True):
            put(address, "masks", name)
        masks = folder / "masks"
    named = item.pointmap not in (None, "none")
    pointmap = str(put(str(item.pointmap), "pointmap")) if named else item.pointmap
    return Inputs(image, mask, masks, pointmap)


def _different(addresses: tuple[str, ...]) -> list[str]:
    """Names of files for one folder: their own names, with a number if two are equal."""
    names = [split_address(address)[1] for address in addresses]
    if len({PurePosixPath(name).stem.casefold() for name in names}) == len(names):
        return names
    return [f"{number}{PurePosixPath(name).suffix}" for number, name in enumerate(names)]
