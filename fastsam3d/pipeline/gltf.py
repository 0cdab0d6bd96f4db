"""Binary glTF 2.0 with coloured meshes, written directly: the same meshes always give the same bytes."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastsam3d.pipeline.geometry import Z_UP_TO_Y_UP, srgb_to_linear, vertex_normals
from fastsam3d.pipeline.reconstruction import Mesh

_FLOAT, _UNSIGNED_INT = 5126, 5125
_VERTEX_BUFFER, _INDEX_BUFFER = 34962, 34963
_MAGIC, _VERSION, _JSON_CHUNK, _BINARY_CHUNK = b"glTF", 2, b"JSON", b"BIN\0"

MATERIAL = {
    "name": "vertex colours",
    "pbrMetallicRoughness": {
        "baseColorFactor": [1.0, 1.0, 1.0, 1.0],
        "metallicFactor": 0.0,
        "roughnessFactor": 1.0,
    },
    "doubleSided": True,
}
"""White and matt, so that what viewers multiply it with, the vertex colours, shows as it is."""


@dataclass(frozen=True)
class Node:
    """A mesh with a name and a place in the file's frame (y up).

    Attributes:
        rotation: unit quaternion (x, y, z, w).
        translation, scale: three numbers each.
    """

    name: str
    mesh: Mesh
    rotation: Sequence[float] | None = None
    translation: Sequence[float] | None = None
    scale: Sequence[float] | None = None


class _Buffer:
    """The binary chunk and its directory, filled array by array."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.views: list[dict[str, Any]] = []
        self.accessors: list[dict[str, Any]] = []

    def add(self, array: np.ndarray, kind: str, target: int, bounds: bool = False) -> int:
        """Appends an array and returns the index of its accessor."""
        code = _FLOAT if array.dtype == np.float32 else _UNSIGNED_INT
        view = {"buffer": 0, "byteOffset": len(self.data), "byteLength": array.nbytes, "target": target}
        accessor: dict[str, Any] = {
            "bufferView": len(self.views),
            "componentType": code,
            "count": len(array),
            "type": kind,
        }
        if bounds:
            accessor["min"], accessor["max"] = array.min(axis=0).tolist(), array.max(axis=0).tolist()
        self.views.append(view)
        self.accessors.append(accessor)
        self.data += np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
        return len(self.accessors) - 1


def glb_bytes(nodes: Sequence[Node], extras: dict[str, Any] | None = None) -> bytes:
    """A scene of coloured meshes as a `.glb` file.

    Vertices go from the object frame (z up) to glTF's (y up). glTF defines `COLOR_0` as linear light, so
    colours are decoded from sRGB; viewers encode them again and show the original values.

    Args:
        nodes: not empty; each mesh has at least one face.
        extras: stored under `asset.extras`.
    """
    buffer = _Buffer()
    meshes, entries = [], []
    for index, node in enumerate(nodes):
        vertices = (node.mesh.vertices @ Z_UP_TO_Y_UP).astype(np.float32)
        normals = (vertex_normals(node.mesh.vertices, node.mesh.faces) @ Z_UP_TO_Y_UP).astype(np.float32)
        colors = srgb_to_linear(node.mesh.vertex_colors).astype(np.float32)
        attributes = {
            "POSITION": buffer.add(vertices, "VEC3", _VERTEX_BUFFER, bounds=True),
            "NORMAL": buffer.add(normals, "VEC3", _VERTEX_BUFFER),
            "COLOR_0": buffer.add(colors, "VEC3", _VERTEX_BUFFER),
        }
        indices = buffer.add(node.mesh.faces.reshape(-1).astype(np.uint32), "SCALAR", _INDEX_BUFFER)
        meshes.append(
            {"name": node.name, "primitives": [{"attributes": attributes, "indices": indices, "material": 0}]}
        )
        entry: dict[str, Any] = {"name": node.name, "mesh": index}
        for key in ("rotation", "translation", "scale"):
            value = getattr(node, key)
            if value is not None:
                entry[key] = [float(v) for v in value]
        entries.append(entry)
    asset: dict[str, Any] = {"version": "2.0", "generator": "fastsam3d"}
    if extras:
        asset["extras"] = extras
    document = {
        "asset": asset,
        "scene": 0,
        "scenes": [{"nodes": list(range(len(entries)))}],
        "nodes": entries,
        "meshes": meshes,
        "materials": [MATERIAL],
        "accessors": buffer.accessors,
        "bufferViews": buffer.views,
        "buffers": [{"byteLength": len(buffer.data)}],
    }
    text = json.dumps(document, separators=(",", ":"), sort_keys=True, ensure_ascii=True, allow_nan=False).encode(
        "ascii"
    )
    chunks = _chunk(_JSON_CHUNK, text, b" ") + _chunk(_BINARY_CHUNK, bytes(buffer.data), b"\0")
    return _MAGIC + struct.pack("<II", _VERSION, 12 + len(chunks)) + chunks


def _chunk(kind: bytes, data: bytes, padding: bytes) -> bytes:
    data += padding * (-len(data) % 4)
    return struct.pack("<I", len(data)) + kind + data
