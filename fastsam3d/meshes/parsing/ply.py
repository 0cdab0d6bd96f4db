"""Reads PLY files of any program: ASCII and binary of both byte orders, any number types, foreign elements.

Nothing is allocated that the file's size does not bear out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fastsam3d.meshes.mesh import Mesh
from fastsam3d.meshes.parsing.polygons import fans, grey, numbers_of, triangles

_KINDS = {
    **{"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4", "float": "f4"},
    **{"double": "f8", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4"},
    **{"float32": "f4", "float64": "f8", "int64": "i8", "uint64": "u8"},
}
_LONGEST_HEADER = 1 << 16
_COLOURS = (("red", "green", "blue"), ("diffuse_red", "diffuse_green", "diffuse_blue"), ("r", "g", "b"))
_CORNERS = ("vertex_indices", "vertex_index")
_LIST = re.compile(r"property\s+list\s+(\S+)\s+(\S+)\s+(\S+)\s*$")
_SINGLE = re.compile(r"property\s+(\S+)\s+(\S+)\s*$")


@dataclass
class Element:
    """An element of the header: single properties as (name, type), lists as (name, type of the length, type)."""

    name: str
    count: int
    properties: list[tuple[str, ...]] = field(default_factory=list)

    @property
    def has_lists(self) -> bool:
        """Tells whether its rows can be of different lengths."""
        return any(len(each) == 3 for each in self.properties)


Columns = dict[str, np.ndarray]
"""Values of an element by property: single ones `[count]`, a list as triangles `[F, 3]`."""


def read_ply_file(path: Path) -> list[tuple[str, Mesh]]:
    """Reads one mesh: with faces, or points, or the centres of Gaussians with their constant colour.

    Raises:
        ValueError: it is no PLY file, a damaged one, or one of a kind that is not read.
    """
    columns = _read_columns(path)
    vertex = columns["vertex"]
    if not all(axis in vertex for axis in "xyz"):
        if "packed_position" in vertex:
            raise ValueError("its Gaussians are compressed; save them as an ordinary 3DGS PLY file")
        raise ValueError("its vertices have no x, y and z")
    vertices = np.stack([vertex[axis] for axis in "xyz"], axis=1).astype(np.float32)
    face = columns.get("face", {})
    corners = next((face[name] for name in _CORNERS if name in face), np.zeros((0, 3), dtype=np.int64))
    return [(path.stem, Mesh(vertices, corners, _colours(vertex)))]


def read_vertex_columns(path: Path) -> Columns:
    """Reads the values of the vertices by property, `[count]` each.

    Raises:
        ValueError: it is no PLY file, a damaged one, or one without vertices.
    """
    return _read_columns(path)["vertex"]


def _read_columns(path: Path) -> dict[str, Columns]:
    data = path.read_bytes()
    order, elements, body = read_header(data)
    columns = _read_text(data[body:], elements) if order is None else _read_binary(data, body, elements, order)
    if "vertex" not in columns:
        raise ValueError("it has no vertices")
    return columns


def read_header(data: bytes) -> tuple[str | None, list[Element], int]:
    """Reads the byte order ("<", ">", None for ASCII), the elements, and where the body begins.

    Raises:
        ValueError: there is no usable header.
    """
    end = re.search(rb"(?:^|[\r\n])end_header[ \t]*(\r\n|\n|\r)", data[:_LONGEST_HEADER])
    if not data.startswith(b"ply") or end is None:
        raise ValueError("it is no PLY file")
    order: str | None = ""
    elements: list[Element] = []
    for line in re.split(r"[\r\n]+", data[: end.start()].decode("latin-1")):
        words = line.split()
        if line.startswith("format") and len(words) > 1:
            orders = {"ascii": None, "binary_little_endian": "<", "binary_big_endian": ">"}
            if words[1] not in orders:
                raise ValueError(f"its format {words[1][:40]!r} is unknown")
            order = orders[words[1]]
        elif words[:1] == ["element"]:
            if len(words) != 3 or not (words[2].isascii() and words[2].isdecimal()) or len(words[2]) > 12:
                raise ValueError(f"its header has the line {line[:60]!r}")
            elements.append(Element(words[1], int(words[2])))
        elif words[:1] == ["property"]:
            found: tuple[str, ...] = ()
            if (of_list := _LIST.match(line)) is not None:
                found = of_list[3], of_list[1], of_list[2]
            elif (of_single := _SINGLE.match(line)) is not None:
                found = of_single[2], of_single[1]
            if not elements or not found or any(kind not in _KINDS for kind in found[1:]):
                raise ValueError(f"its header has the line {line[:60]!r}")
            if any(found[0] == known[0] for known in elements[-1].properties):
                raise ValueError(f"its header has the property {found[0][:40]} twice")
            elements[-1].properties.append(found)
    if order == "":
        raise ValueError("its header has no format")
    return order, elements, end.end()


def _read_binary(data: bytes, place: int, elements: list[Element], order: str) -> dict[str, Columns]:
    columns: dict[str, Columns] = {}
    for element in elements:
        if element.has_lists:
            columns[element.name], place = _read_lists(data, place, element, order)
            continue
        layout = np.dtype([(name, order + _KINDS[kind]) for name, kind in element.properties])
        if element.count * layout.itemsize > len(data) - place:
            raise ValueError("it ends too early")
        if layout.itemsize:
            record = np.frombuffer(data, layout, element.count, place)
            columns[element.name] = {name: record[name] for name in layout.names or ()}
        place += element.count * layout.itemsize
    return columns


def _read_lists(data: bytes, place: int, element: Element, order: str) -> tuple[Columns, int]:
    """Reads an element with lists; at once where all rows are as long as the first, else row by row."""
    if not element.count:
        return {}, place
    kinds = [tuple(np.dtype(order + _KINDS[kind]) for kind in each[1:]) for each in element.properties]
    if element.count * sum(kind[0].itemsize for kind in kinds) > len(data) - place:
        raise ValueError("it ends too early")
    parts, after = [], place
    for (name, *_), kind in zip(element.properties, kinds, strict=True):
        if len(kind) == 1:
            parts.append((name, kind[0], (1,)))
            after += kind[0].itemsize
            continue
        length = _length(data, after, kind[0])
        parts += [(f"{name} length", kind[0], (1,)), (name, kind[1], (length,))]
        after += kind[0].itemsize + length * kind[1].itemsize
    lengths = [(f"{each[0]}", f"{each[0]} length") for each in element.properties if len(each) == 3]
    width = after - place
    if element.count * width <= len(data) - place and width < 1 << 30:
        record = np.frombuffer(data, np.dtype(parts), element.count, place)
        if all((record[length] == record[length][0]).all() for _, length in lengths):
            return {name: fans(record[name]) for name, _ in lengths}, place + element.count * width
    polygons: dict[str, list[np.ndarray]] = {name: [] for name, _ in lengths}
    for _ in range(element.count):
        for (name, *_), kind in zip(element.properties, kinds, strict=True):
            if len(kind) == 1:
                place += kind[0].itemsize
                continue
            length = _length(data, place, kind[0])
            place += kind[0].itemsize
            if length * kind[1].itemsize > len(data) - place:
                raise ValueError("it ends too early")
            if name in _CORNERS:
                polygons[name].append(np.frombuffer(data, kind[1], length, place))
            place += length * kind[1].itemsize
    return {name: triangles([part.tolist() for part in found]) for name, found in polygons.items()}, place


def _length(data: bytes, place: int, kind: np.dtype) -> int:
    if place + kind.itemsize > len(data):
        raise ValueError("it ends too early")
    length = int(np.frombuffer(data, kind, 1, place)[0])
    if not 0 <= length <= len(data):
        raise ValueError("a list in it has an impossible length")
    return length


def _read_text(body: bytes, elements: list[Element]) -> dict[str, Columns]:
    values, place = numbers_of(body), 0
    columns: dict[str, Columns] = {}
    for element in elements:
        width = len(element.properties)
        if element.count * width > len(values) - place:
            raise ValueError("it ends too early")
        if not element.has_lists:
            table = values[place : place + element.count * width].reshape(element.count, width)
            columns[element.name] = {
                name: _typed(table[:, index], np.dtype(_KINDS[kind]))
                for index, (name, kind) in enumerate(element.properties)
            }
            place += element.count * width
            continue
        polygons: dict[str, list[list[int]]] = {each[0]: [] for each in element.properties if len(each) == 3}
        for _ in range(element.count):
            for each in element.properties:
                if place >= len(values):
                    raise ValueError("it ends too early")
                length = values[place] if len(each) == 3 else 0
                place += 1
                if not 0 <= length <= len(values) - place:
                    raise ValueError("a list in it has an impossible length")
                if len(each) == 3:
                    if each[0] in _CORNERS:
                        polygons[each[0]].append(values[place : place + int(length)].astype(np.int64).tolist())
                    place += int(length)
        columns[element.name] = {name: triangles(found) for name, found in polygons.items()}
    return columns


def _typed(values: np.ndarray, kind: np.dtype) -> np.ndarray:
    """Numbers of a text as the header's type; of whole numbers, those out of range are the nearest in it."""
    if kind.kind == "f":
        with np.errstate(over="ignore"):
            return values.astype(kind)
    limits = np.iinfo(kind)
    return np.clip(np.nan_to_num(values), max(limits.min, -(2**53)), min(limits.max, 2**53)).astype(kind)


def _top_of(colours: np.ndarray) -> float:
    """The value that stands for full brightness: the largest of the type, or of floating point 1 or 255."""
    if colours.dtype.kind == "f":
        return 255.0 if np.nanmax(np.where(np.isfinite(colours), colours, 0)) > 1 else 1.0
    return 65535.0 if colours.dtype.itemsize == 2 else 255.0


def _colours(vertex: Columns) -> np.ndarray:
    from fastsam3d.meshes.gaussians import SPHERICAL_HARMONIC_0

    count = len(vertex["x"])
    if all(f"f_dc_{k}" in vertex for k in range(3)):
        harmonics = np.stack([vertex[f"f_dc_{k}"] for k in range(3)], axis=1).astype(np.float32)
        return np.clip(0.5 + SPHERICAL_HARMONIC_0 * harmonics, 0, 1).astype(np.float32)
    names = next((names for names in _COLOURS if all(name in vertex for name in names)), None)
    if names is None or not count:
        return grey(count)
    colours = np.stack([vertex[name] for name in names], axis=1)
    return np.clip(colours.astype(np.float64) / _top_of(colours), 0, 1).astype(np.float32)
