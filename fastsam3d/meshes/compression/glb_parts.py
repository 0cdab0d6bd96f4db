"""Takes binary glTF apart into its JSON part and arrays, and puts it together again with other arrays."""

from __future__ import annotations

import copy
import json
import struct
from typing import Any

import numpy as np

from fastsam3d.meshes.gltf_reading import split_glb

FLOAT, UNSIGNED_INT, UNSIGNED_SHORT, BYTE = 5126, 5125, 5123, 5120
VERTEX_BUFFER, INDEX_BUFFER = 34962, 34963
TRIANGLES = 4
_KINDS = {5120: "i1", 5121: "u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}


class GlbParts:
    """A file of ours that is being written again.

    Attributes:
        document: a copy of the JSON part, to be changed. Its accessors and buffer views are those that were added.
    """

    def __init__(self, data: bytes) -> None:
        """Takes a file apart; pictures are carried over.

        Raises:
            ValueError: the data is no GLB file of version 2, or needs extensions already.
        """
        self._old, self._binary = split_glb(data)
        if self._old.get("extensionsRequired"):
            raise ValueError(f"it needs the glTF extension {self._old['extensionsRequired'][0]}")
        self.document: dict[str, Any] = copy.deepcopy(self._old)
        self.document |= {"accessors": [], "bufferViews": []}
        self._data = bytearray()
        for image in self.document.get("images", []):
            view = self._old["bufferViews"][image["bufferView"]]
            start = view.get("byteOffset", 0)
            image["bufferView"] = self.add_view(self._binary[start : start + view["byteLength"]])

    def primitives(self) -> list[tuple[int, dict[str, Any]]]:
        """Lists (number of its mesh, primitive) of all primitives, to be changed."""
        return [
            (number, primitive)
            for number, mesh in enumerate(self.document["meshes"])
            for primitive in mesh["primitives"]
        ]

    def old_accessor(self, index: int) -> dict[str, Any]:
        """Copies an accessor of the file as it was."""
        return dict(self._old["accessors"][index])

    def old_array(self, index: int) -> np.ndarray:
        """Reads the values of an accessor of the file as it was, `[N, width]`."""
        accessor = self._old["accessors"][index]
        view = self._old["bufferViews"][accessor["bufferView"]]
        kind, width = np.dtype(_KINDS[accessor["componentType"]]), _WIDTHS[accessor["type"]]
        start = view.get("byteOffset", 0) + accessor.get("byteOffset", 0)
        stride = view.get("byteStride", kind.itemsize * width)
        values = np.ndarray((accessor["count"], width), kind, self._binary, start, (stride, kind.itemsize))
        return np.array(values)

    def add_view(self, data: bytes, **described: Any) -> int:
        """Appends bytes at a multiple of four; returns the number of their view."""
        self._data += b"\0" * (-len(self._data) % 4)
        views = self.document["bufferViews"]
        views.append({"buffer": 0, "byteOffset": len(self._data), "byteLength": len(data), **described})
        self._data += data
        return len(views) - 1

    def add_array(self, values: np.ndarray, accessor: dict[str, Any], target: int) -> int:
        """Appends values `[N, width]`; returns the number of their accessor.

        Rows of vertex attributes begin at multiples of four, as glTF asks for.

        Args:
            values: of the type that the accessor names.
            accessor: its type and further values; the view and the count are added.
            target: `VERTEX_BUFFER` or `INDEX_BUFFER`.
        """
        stride = values.itemsize * values.shape[1]
        described: dict[str, Any] = {"target": target}
        if target == VERTEX_BUFFER and stride % 4:
            width = -(-stride // 4) * 4 // values.itemsize
            values = np.pad(values, ((0, 0), (0, width - values.shape[1])))
            described["byteStride"] = width * values.itemsize
        data = np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<"), copy=False).tobytes()
        entry = accessor | {"bufferView": self.add_view(data, **described), "count": len(values)}
        return self.add_accessor(entry)

    def add_accessor(self, accessor: dict[str, Any]) -> int:
        """Appends an accessor; returns its number."""
        self.document["accessors"].append(accessor)
        return len(self.document["accessors"]) - 1

    def carry_over(self, index: int, target: int) -> int:
        """Appends an accessor of the file as it was, unchanged; returns its number."""
        accessor = self.old_accessor(index)
        for key in ("bufferView", "byteOffset", "count"):
            accessor.pop(key, None)
        return self.add_array(self.old_array(index), accessor, target)

    def require(self, extension: str) -> None:
        """Says that the file can be read with an extension only."""
        for key in ("extensionsUsed", "extensionsRequired"):
            self.document[key] = sorted({*self.document.get(key, []), extension})

    def encoded(self) -> bytes:
        """Encodes the file."""
        document = self.document | {"buffers": [{"byteLength": len(self._data)}]}
        text = json.dumps(document, separators=(",", ":"), sort_keys=True, ensure_ascii=True, allow_nan=False)
        chunks = b""
        for kind, data, padding in ((b"JSON", text.encode("ascii"), b" "), (b"BIN\0", bytes(self._data), b"\0")):
            data += padding * (-len(data) % 4)
            chunks += struct.pack("<I4s", len(data), kind) + data
        return b"glTF" + struct.pack("<II", 2, 12 + len(chunks)) + chunks


def smallest_indices(indices: np.ndarray) -> tuple[np.ndarray, int]:
    """Returns (indices in the smallest type that holds them, the number of the type)."""
    if indices.max(initial=0) < 65535:  # 65535 itself has a meaning of its own
        return indices.astype(np.uint16), UNSIGNED_SHORT
    return indices.astype(np.uint32), UNSIGNED_INT
