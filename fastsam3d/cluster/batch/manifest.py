"""Reads manifests: one item a row, in JSON lines, CSV or Parquet."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from fastsam3d.basics.optional import optional_module
from fastsam3d.basics.paths import user_path
from fastsam3d.basics.pixels import SEEDS
from fastsam3d.basics.suggestions import suggestion
from fastsam3d.cluster.batch.items import Item
from fastsam3d.cluster.batch.places import LocalFolder, is_remote, place_of, split_address, without_file_scheme
from fastsam3d.errors import UserError

KINDS = (".jsonl", ".csv", ".parquet")
COLUMNS = ("image", "mask", "masks", "labels", "pointmap", "seed", "name")
"""Columns that mean something; all others are carried through to the index."""
LONGEST_NAME = 150
MOST_LISTINGS = 64
"""Remote folders that are listed to tell changed files; beyond that a change of content is not noticed."""


def read_manifest(source: str, kind: str) -> list[Item]:
    """Reads the items of a manifest. Relative paths in it start at its own folder.

    Args:
        kind: one of `KINDS`.

    Raises:
        UserError: it cannot be read, a row names no picture, or a value cannot be used.
    """
    folder, name = split_address(source)
    place = place_of(folder)
    data = place.read(name)
    rows = list({".jsonl": _json_rows, ".csv": _csv_rows, ".parquet": _parquet_rows}[kind](data, source))
    if not rows:
        raise UserError(f"the manifest {source} has no row.")
    stamps = _Stamps()
    return [_item(row, f"{source}, row {number}", place.address, stamps) for number, row in rows]


def _json_rows(data: bytes, source: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    # Only a line feed ends a line: `splitlines` would also split at signs that JSON allows inside of a text.
    for number, line in enumerate(_text(data, source).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise UserError(f'{source}, row {number} is no JSON object. Give one a line, as {{"image": ...}}.')
        yield number, row


def _csv_rows(data: bytes, source: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    reader = csv.DictReader(io.StringIO(_text(data, source)))
    number = 0
    try:
        for number, row in enumerate(reader, 1):
            if None in row:
                raise UserError(f"{source}, row {number} has more cells than the first line has names.")
            yield number, {str(key).strip(): value for key, value in row.items() if value not in (None, "")}
    except csv.Error as error:
        raise UserError(
            f"{source} cannot be read as CSV after row {number} ({error}). Save it as JSON lines."
        ) from None


def _parquet_rows(data: bytes, source: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    parquet = optional_module("pyarrow.parquet", "a manifest in Parquet", "ray")
    try:
        rows = parquet.read_table(io.BytesIO(data)).to_pylist()
    except Exception as error:  # pyarrow's own kinds
        raise UserError(f"{source} cannot be read as Parquet ({str(error)[:120]}).") from None
    for number, row in enumerate(rows, 1):
        yield number, {key: value for key, value in row.items() if value is not None}


def _text(data: bytes, source: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{source} is no UTF-8 text. Save it as UTF-8.") from None


def _item(row: Mapping[str, Any], where: str, folder: str, stamps: _Stamps) -> Item:
    image = _path(row, "image", where, folder)
    if image is None:
        way_out = suggestion("image", [str(key) for key in row]) if row else ""
        raise UserError(f"{where} names no picture: the column image is missing or empty. {way_out}".rstrip())
    mask, labels = (_path(row, key, where, folder) for key in ("mask", "labels"))
    masks = _paths(row.get("masks"), where, folder)
    if sum(value not in (None, ()) for value in (mask, labels, masks)) > 1:
        raise UserError(f"{where} has several of mask, masks and labels: give one of them.")
    if labels is not None:
        masks = (labels,)
    pointmap = "none" if row.get("pointmap") == "none" else _path(row, "pointmap", where, folder)
    item = Item(
        name=_name(row, image, mask, where),
        image=image,
        mask=mask,
        masks=masks,
        pointmap=pointmap,
        seed=_seed(row.get("seed"), where),
        columns={str(key): value for key, value in row.items() if key not in COLUMNS},
    )
    return Item(**{**vars(item), "stamp": ";".join(map(stamps.of, item.addresses))})


def _path(row: Mapping[str, Any], key: str, where: str, folder: str) -> str | None:
    value = row.get(key)
    if value is None or value == "":
        return None
    if not isinstance(value, str) or "\0" in value:
        raise UserError(f"{where}: {key} is {value!r}: a path or an address is needed.")
    value = without_file_scheme(value)
    if is_remote(value) or (not is_remote(folder) and user_path(value).is_absolute()):
        return value if is_remote(value) else str(user_path(value))
    return f"{folder.rstrip('/')}/{value}"


def _paths(value: Any, where: str, folder: str) -> tuple[str, ...]:
    if value is None or value == "":
        return ()
    parts = value.split(";") if isinstance(value, str) else value
    if not isinstance(parts, list):
        raise UserError(f"{where}: masks is {value!r}: a path, or a list of paths, is needed.")
    found = (
        _path({"masks": part.strip() if isinstance(part, str) else part}, "masks", where, folder) for part in parts
    )
    return tuple(path for path in found if path is not None)


def _seed(value: Any, where: str) -> int | None:
    if value is None or value == "":
        return None
    try:
        seed = int(value)
    except (TypeError, ValueError, OverflowError):  # the last one: infinity
        seed = -1
    if isinstance(value, bool) or seed != (float(value) if isinstance(value, float) else seed) or not 0 <= seed < SEEDS:
        raise UserError(f"{where}: seed is {value!r}: a whole number from 0 to {SEEDS - 1} is needed.")
    return seed


def _name(row: Mapping[str, Any], image: str, mask: str | None, where: str) -> str:
    given = row.get("name")
    if given is None or given == "":
        folder, last = split_address(image)
        stem = PurePosixPath(last).stem
        name = split_address(folder)[1] if stem == "image" else stem
        name = f"{name}_{PurePosixPath(split_address(mask)[1]).stem}" if mask else name
        if not name or name.startswith("."):  # "../image.png" must not lead out of the output
            raise UserError(f"{where}: the name {name[:60]!r} cannot be that of a folder. Give one in the column name.")
        return name
    name = str(given)
    bad = name.startswith(".") or any(sign in "/\\" or not sign.isprintable() for sign in name)
    if bad or len(name.encode("utf-8", "surrogatepass")) > LONGEST_NAME:
        raise UserError(f"{where}: the name {name[:60]!r} cannot be that of a folder. Use letters, digits, - and _.")
    return name


class _Stamps:
    """Stamps of files, where their folders can be listed."""

    def __init__(self) -> None:
        self._listed: dict[str, dict[str, str]] = {}

    def of(self, address: str) -> str:
        folder, name = split_address(address)
        if not is_remote(address):
            path = user_path(address)
            if path.is_dir():
                return ",".join(f"{key}={value}" for key, value in sorted(LocalFolder(path).files().items()))
            return LocalFolder(path.parent).stamp(path.name) or ""
        if folder not in self._listed:
            if len(self._listed) >= MOST_LISTINGS:
                return ""
            self._listed[folder] = place_of(folder).files()
        return self._listed[folder].get(name, "")
