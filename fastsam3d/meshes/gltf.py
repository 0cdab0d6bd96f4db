"""Encodes coloured meshes and points as binary glTF 2.0 (GLB); the same input always gives the same bytes."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastsam3d.meshes.geometry import Z_UP_TO_Y_UP, srgb_to_linear, vertex_normals
from fastsam3d.meshes.mesh import Mesh, TexturedMesh

_FLOAT, _UNSIGNED_INT = 5126, 5125
_VERTEX_BUFFER, _INDEX_BUFFER = 34962, 34963
_POINTS, _TRIANGLES = 0, 4
_LINEAR, _LINEAR_MIPMAP_LINEAR, _CLAMP_TO_EDGE = 9729, 9987, 33071
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
"""White and matt: viewers multiply the material with the vertex colours, which so stay unchanged."""


@dataclass(frozen=True)
class Node:
    """A named mesh and its pose in the file's frame (y up).

    Attributes:
        mesh: the mesh in its object frame (z up). If it has no faces, its vertices are written as points.
        rotation: unit quaternion (x, y, z, w).
        translation, scale: three numbers each.
    """

    name: str
    mesh: Mesh
    rotation: Sequence[float] | None = None
    translation: Sequence[float] | None = None
    scale: Sequence[float] | None = None


@dataclass(frozen=True)
class Root:
    """A named node without a mesh that stands above all others, and turns them together.

    Attributes:
        rotation: unit quaternion (x, y, z, w); None turns nothing.
    """

    name: str
    rotation: Sequence[float] | None = None


class _Document:
    """Collects the JSON part and the binary chunk of a file, mesh by mesh."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.views: list[dict[str, Any]] = []
        self.accessors: list[dict[str, Any]] = []
        self.meshes: list[dict[str, Any]] = []
        self.nodes: list[dict[str, Any]] = []
        self.materials: list[dict[str, Any]] = []
        self.images: list[dict[str, Any]] = []
        self.roots: list[int] | None = None

    def add_root(self, root: Root) -> None:
        """Adds a node above all that there are."""
        entry: dict[str, Any] = {"name": root.name, "children": list(range(len(self.nodes)))}
        if root.rotation is not None:
            entry["rotation"] = [float(v) for v in root.rotation]
        self.roots = [len(self.nodes)]
        self.nodes.append(entry)

    def add_node(self, node: Node) -> None:
        """Adds a node and its mesh."""
        self.meshes.append({"name": node.name, "primitives": [self._primitive(node.mesh)]})
        entry: dict[str, Any] = {"name": node.name, "mesh": len(self.meshes) - 1}
        for key in ("rotation", "translation", "scale"):
            value = getattr(node, key)
            if value is not None:
                entry[key] = [float(v) for v in value]
        self.nodes.append(entry)

    def to_dict(self, extras: dict[str, Any] | None) -> dict[str, Any]:
        """Returns the JSON part of the file; `extras` go under `asset.extras`."""
        asset: dict[str, Any] = {"version": "2.0", "generator": "fastsam3d"}
        if extras:
            asset["extras"] = extras
        document = {
            "asset": asset,
            "scene": 0,
            "scenes": [{"nodes": list(range(len(self.nodes))) if self.roots is None else self.roots}],
            "nodes": self.nodes,
            "meshes": self.meshes,
            "materials": self.materials,
            "accessors": self.accessors,
            "bufferViews": self.views,
            "buffers": [{"byteLength": len(self.data)}],
        }
        if self.images:
            document["images"] = self.images
            document["textures"] = [{"source": index, "sampler": 0} for index in range(len(self.images))]
            edges = {"wrapS": _CLAMP_TO_EDGE, "wrapT": _CLAMP_TO_EDGE}
            document["samplers"] = [{"magFilter": _LINEAR, "minFilter": _LINEAR_MIPMAP_LINEAR, **edges}]
        return document

    def _primitive(self, mesh: Mesh) -> dict[str, Any]:
        vertices = (mesh.vertices @ Z_UP_TO_Y_UP).astype(np.float32)
        attributes = {"POSITION": self._array(vertices, "VEC3", _VERTEX_BUFFER, bounds=True)}
        if not mesh.is_empty:
            smooth = mesh.normals if isinstance(mesh, TexturedMesh) else vertex_normals(mesh.vertices, mesh.faces)
            attributes["NORMAL"] = self._array((smooth @ Z_UP_TO_Y_UP).astype(np.float32), "VEC3", _VERTEX_BUFFER)
        if isinstance(mesh, TexturedMesh):
            attributes["TEXCOORD_0"] = self._array(mesh.uv.astype(np.float32), "VEC2", _VERTEX_BUFFER)
            if mesh.tangents is not None:
                turned = np.concatenate([mesh.tangents[:, :3] @ Z_UP_TO_Y_UP, mesh.tangents[:, 3:]], axis=1)
                attributes["TANGENT"] = self._array(turned.astype(np.float32), "VEC4", _VERTEX_BUFFER)
            material = self._material(mesh)
        else:
            colors = srgb_to_linear(mesh.vertex_colors).astype(np.float32)
            attributes["COLOR_0"] = self._array(colors, "VEC3", _VERTEX_BUFFER)
            material = self._material(None)
        primitive: dict[str, Any] = {"attributes": attributes, "material": material}
        if mesh.is_empty:
            return primitive | {"mode": _POINTS}
        indices = mesh.faces.reshape(-1).astype(np.uint32)
        return primitive | {"indices": self._array(indices, "SCALAR", _INDEX_BUFFER)}

    def _material(self, mesh: TexturedMesh | None) -> int:
        """Adds a material where needed and returns its index. All meshes without a texture share one material."""
        if mesh is None:
            if MATERIAL not in self.materials:
                self.materials.append(MATERIAL)
            return self.materials.index(MATERIAL)
        from fastsam3d.meshes.texture import texture_png

        self.images.append({"bufferView": self._view(texture_png(mesh)), "mimeType": "image/png"})
        surface = dict(MATERIAL["pbrMetallicRoughness"])  # type: ignore[call-overload]
        surface["baseColorTexture"] = {"index": len(self.images) - 1}
        if mesh.material is not None:
            from fastsam3d.meshes.texture import material_png

            self.images.append({"bufferView": self._view(material_png(mesh.material)), "mimeType": "image/png"})
            surface |= {"metallicFactor": 1.0, "metallicRoughnessTexture": {"index": len(self.images) - 1}}
        material: dict[str, Any] = MATERIAL | {"name": "texture", "pbrMetallicRoughness": surface}
        if mesh.normal_map is not None:
            from fastsam3d.meshes.texture import picture_png

            self.images.append({"bufferView": self._view(picture_png(mesh.normal_map)), "mimeType": "image/png"})
            material["normalTexture"] = {"index": len(self.images) - 1}
        self.materials.append(material)
        return len(self.materials) - 1

    def _array(self, array: np.ndarray, kind: str, target: int, bounds: bool = False) -> int:
        """Appends an array and returns the index of its accessor."""
        data = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
        accessor: dict[str, Any] = {
            "bufferView": self._view(data, target),
            "componentType": _FLOAT if array.dtype == np.float32 else _UNSIGNED_INT,
            "count": len(array),
            "type": kind,
        }
        if bounds:
            accessor["min"], accessor["max"] = array.min(axis=0).tolist(), array.max(axis=0).tolist()
        self.accessors.append(accessor)
        return len(self.accessors) - 1

    def _view(self, data: bytes, target: int | None = None) -> int:
        """Appends bytes at a multiple of four, as glTF wants arrays, and returns the index of their view."""
        self.data += b"\0" * (-len(self.data) % 4)
        view = {"buffer": 0, "byteOffset": len(self.data), "byteLength": len(data)}
        self.views.append(view if target is None else view | {"target": target})
        self.data += data
        return len(self.views) - 1


def glb_bytes(nodes: Sequence[Node], extras: dict[str, Any] | None = None, root: Root | None = None) -> bytes:
    """Encodes a scene of coloured meshes as a `.glb` file.

    Vertices go from the object frame (z up) to glTF's (y up). glTF defines `COLOR_0` as linear light, so
    colours are decoded from sRGB; viewers encode them again and show the original values. Textures are sRGB.

    Args:
        nodes: not empty; each mesh has at least one vertex.
        extras: stored under `asset.extras`.
        root: stands above all nodes; their poses are then in its frame. None: there is no such node.
    """
    document = _Document()
    for node in nodes:
        document.add_node(node)
    if root is not None:
        document.add_root(root)
    text = json.dumps(
        document.to_dict(extras), separators=(",", ":"), sort_keys=True, ensure_ascii=True, allow_nan=False
    ).encode("ascii")
    chunks = _chunk(_JSON_CHUNK, text, b" ") + _chunk(_BINARY_CHUNK, bytes(document.data), b"\0")
    return _MAGIC + struct.pack("<II", _VERSION, 12 + len(chunks)) + chunks


def _chunk(kind: bytes, data: bytes, padding: bytes) -> bytes:
    data += padding * (-len(data) % 4)
    return struct.pack("<I", len(data)) + kind + data
