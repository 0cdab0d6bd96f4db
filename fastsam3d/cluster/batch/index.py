"""The index of a batch: one row an item, in the order of the input."""

from __future__ import annotations

import importlib.util
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from fastsam3d.basics.files import finite
from fastsam3d.cluster.batch.items import Item
from fastsam3d.cluster.batch.ledger import Ledger, Row
from fastsam3d.cluster.batch.places import Place

PARQUET, JSON_LINES = "index.parquet", "index.jsonl"
TEXTS = ("name", "status", "error")
WHOLE = ("objects", "failed_objects", "evaluations", "faces", "bytes")
NUMBERS = ("seconds", "mask_iou")
LAST = ("worker", "image")
PART = 5000
"""Rows that are in memory at once."""


def can_write_parquet() -> bool:
    """Tells whether pyarrow is installed."""
    return importlib.util.find_spec("pyarrow") is not None


def write_index(output: Place, items: Sequence[Item], ledger: Ledger, stages: Sequence[str]) -> str:
    """Writes the index; returns its name: `index.parquet`, or `index.jsonl` where pyarrow is not installed.

    Args:
        stages: names of the stages whose seconds are columns.
    """
    data = _parquet(items, ledger, stages) if can_write_parquet() else _json_lines(items, ledger, stages)
    name = PARQUET if can_write_parquet() else JSON_LINES
    output.write(name, data)
    return name


def index_row(item: Item, row: Row, stages: Iterable[str], names: Mapping[str, str]) -> Row:
    """Makes a row of the index.

    Args:
        names: of the manifest's columns in the index, see `column_names`.
    """
    seconds = row.get("stage_seconds", {})
    own = {key: row.get(key) for key in (*TEXTS, *WHOLE, *NUMBERS)}
    own |= {f"seconds_{stage}": seconds.get(stage) for stage in stages}
    own |= {"worker": row.get("worker"), "image": item.image}
    return own | {names[key]: value for key, value in item.columns.items()}


def column_names(items: Iterable[Item], stages: Iterable[str]) -> dict[str, str]:
    """Names the manifest's columns in the index: as they are called, with `input_` before a name that is taken."""
    own = {*TEXTS, *WHOLE, *NUMBERS, *LAST, *(f"seconds_{stage}" for stage in stages)}
    keys = dict.fromkeys(key for item in items for key in item.columns)
    # An index may be the next manifest: then `status` and `input_status` are both columns of it.
    taken = own | keys.keys()
    names: dict[str, str] = {}
    for key in keys:
        name = str(_text(key))
        if key in own:
            while name in taken:
                name = f"input_{name}"
        names[key] = name
        taken.add(name)
    return names


def _rows(items: Sequence[Item], ledger: Ledger, stages: Sequence[str]) -> Iterator[Row]:
    names = column_names(items, stages)
    for item in items:
        row = ledger.get(item.name) or {"name": item.name, "status": "missing"}
        yield index_row(item, row, stages, names)


def _json_lines(items: Sequence[Item], ledger: Ledger, stages: Sequence[str]) -> bytes:
    lines = (json.dumps(finite(row), allow_nan=False) for row in _rows(items, ledger, stages))
    return "".join(f"{line}\n" for line in lines).encode()


def _parquet(items: Sequence[Item], ledger: Ledger, stages: Sequence[str]) -> bytes:
    import pyarrow
    from pyarrow import parquet

    own = {key: pyarrow.string() for key in TEXTS} | {key: pyarrow.int64() for key in WHOLE}
    own |= {key: pyarrow.float64() for key in NUMBERS} | {f"seconds_{stage}": pyarrow.float64() for stage in stages}
    own |= {key: pyarrow.string() for key in LAST}
    kinds = _kinds(items)
    names = column_names(items, stages)
    free = {names[key]: getattr(pyarrow, _ARROW[kind])() for key, kind in kinds.items()}
    schema = pyarrow.schema(list((own | free).items()))
    file = io.BytesIO()
    text_columns = {field.name for field in schema if field.type == pyarrow.string()}
    with parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        part: list[Row] = []
        for row in _rows(items, ledger, stages):
            part.append({key: _text(row.get(key)) if key in text_columns else row.get(key) for key in schema.names})
            if len(part) == PART:
                writer.write_table(pyarrow.Table.from_pylist(part, schema=schema))
                part = []
        if part or not items:
            writer.write_table(pyarrow.Table.from_pylist(part, schema=schema))
    return file.getvalue()


_ARROW = {bool: "bool_", int: "int64", float: "float64", str: "string"}


def _kinds(items: Iterable[Item]) -> dict[str, type]:
    """The type of every free column; text where values have several, or are no plain values."""
    found: dict[str, set[type]] = {}
    for item in items:
        for key, value in item.columns.items():
            found.setdefault(key, set()).add(type(value))
    kinds: dict[str, type] = {}
    for key, types in found.items():
        types = types - {type(None)}
        kind = float if types == {int, float} else types.pop() if len(types) == 1 else str
        fits = kind in _ARROW and all(_fits(item.columns.get(key), kind) for item in items)
        kinds[key] = kind if fits else str
    return kinds


def _fits(value: Any, kind: type) -> bool:
    """Tells whether a column of a kind can hold a value exactly."""
    if not isinstance(value, int):
        return True
    return -(2**63) <= value < 2**63 if kind is not float else abs(value) <= 2**53


def _text(value: Any) -> str | None:
    """A value as text: as it is, or as JSON."""
    if value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(finite(value), default=str)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
