"""Reads binary glTF 2.0 (GLB) as meshes: our own files, and others that hold plain triangles or points."""

from __future__ import annotations

import io
import json
import struct
from typing import Any

import numpy as np
from PIL import Image

from fastsam3d.meshes.geometry import (
    Z_UP_TO_Y_UP,
    linear_to_srgb,
    quaternion_xyzw_to_matrix,
    srgb_to_linear,
    vertex_normals,
)
from fastsam3d.meshes.mesh import Mesh, TexturedMesh

_TYPES = {5120: "i1", 5121: "u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}
_POINTS, _TRIANGLES = 0, 4
_DEEPEST = 64


def up_of(data: bytes) -> np.ndarray | None:
    """Reads the direction of up that our scenes store, a unit vector `[3]` in the frame of `read_glb`'s meshes.

    Returns None for any other file.
    """
    extras = _split(data)[0].get("asset", {}).get("extras")
    up = extras.get("up") if isinstance(extras, dict) else None
    if not isinstance(up, list) or len(up) != 3 or not all(isinstance(value, (int, float)) for value in up):
        return None
    return np.array(up, dtype=np.float64) @ Z_UP_TO_Y_UP.T if np.isclose(np.linalg.norm(up), 1.0) else None


def read_glb(data: bytes) -> list[tuple[str, Mesh]]:
    """Reads (node name, mesh) of every triangle or point primitive, in the file's frame turned to z up.

    Points come as meshes without faces. If a primitive has neither vertex colours nor a texture, its vertices get the
    colour of its material.

    Raises:
        ValueError: the data is no GLB file, or needs extensions, sparse arrays or other files, which are not read here.
    """
    document, binary = _split(data)
    required = document.get("extensionsRequired")
    if required:
        raise ValueError(f"it needs the glTF extension {required[0]}")
    reader = _Reader(document, binary)
    found: list[tuple[str, Mesh]] = []
    nodes = document.get("nodes", [])
    scenes = document.get("scenes")
    roots = scenes[document.get("scene", 0)].get("nodes", []) if scenes else range(len(nodes))

    def visit(index: int, parent: np.ndarray, depth: int) -> None:
        if depth > _DEEPEST:
            raise ValueError("its nodes are nested too deeply")
        node = nodes[index]
        matrix = parent @ _local(node)
        if "mesh" in node:
            for primitive in document["meshes"][node["mesh"]]["primitives"]:
                mesh = reader.mesh(primitive, matrix)
                if mesh is not None:
                    found.append((node.get("name", f"node {index}"), mesh))
        for child in node.get("children", []):
            visit(child, matrix, depth + 1)

    for root in roots:
        visit(root, np.eye(4), 0)
    return found


class _Reader:
    """Reads primitives of one document."""

    def __init__(self, document: dict[str, Any], binary: bytes) -> None:
        self.document, self.binary = document, binary

    def mesh(self, primitive: dict[str, Any], matrix: np.ndarray) -> Mesh | None:
        """Reads one primitive; returns None for lines and strips. `matrix [4, 4]` places it in the scene."""
        mode = primitive.get("mode", _TRIANGLES)
        if mode not in (_POINTS, _TRIANGLES) or "POSITION" not in primitive["attributes"]:
            return None
        positions = self._attribute(primitive, "POSITION")
        assert positions is not None
        vertices = ((positions @ matrix[:3, :3].T + matrix[:3, 3]) @ Z_UP_TO_Y_UP.T).astype(np.float32)
        faces = np.zeros((0, 3), dtype=np.int64)
        if mode == _TRIANGLES:
            indices = np.arange(len(vertices))
            if "indices" in primitive:
                indices = self._array(primitive["indices"]).reshape(-1)
            faces = indices[: len(indices) // 3 * 3].reshape(-1, 3).astype(np.int64)
            if np.linalg.det(matrix[:3, :3]) < 0:
                faces = faces[:, ::-1].copy()
        surface = self._material(primitive)
        factor = np.asarray(surface.get("baseColorFactor", [1, 1, 1, 1]), dtype=np.float64)[:3]
        own = self._attribute(primitive, "COLOR_0")
        linear = np.tile(factor, (len(vertices), 1)) if own is None else own[:, :3] * factor
        colors = linear_to_srgb(linear).astype(np.float32)
        uv, texture = self._attribute(primitive, "TEXCOORD_0"), surface.get("baseColorTexture")
        if uv is None or texture is None or not len(faces):
            return Mesh(vertices, faces, colors)
        picture = self._picture(self.document["textures"][texture["index"]]["source"], factor)
        return TexturedMesh(
            vertices, faces, colors, vertex_normals(vertices, faces), uv[:, :2].astype(np.float32), picture
        )

    def _material(self, primitive: dict[str, Any]) -> dict[str, Any]:
        if "material" not in primitive:
            return {}
        return self.document["materials"][primitive["material"]].get("pbrMetallicRoughness", {})

    def _picture(self, index: int, factor: np.ndarray) -> np.ndarray:
        entry = self.document["images"][index]
        if "bufferView" not in entry:
            raise ValueError("its textures are in other files")
        view = self.document["bufferViews"][entry["bufferView"]]
        start = view.get("byteOffset", 0)
        pixels = np.asarray(Image.open(io.BytesIO(self.binary[start : start + view["byteLength"]])).convert("RGB"))
        if np.all(factor == 1):
            return pixels
        return np.rint(linear_to_srgb(srgb_to_linear(pixels / 255) * factor) * 255).astype(np.uint8)

    def _attribute(self, primitive: dict[str, Any], name: str) -> np.ndarray | None:
        index = primitive["attributes"].get(name)
        return None if index is None else self._array(index).astype(np.float64)

    def _array(self, index: int) -> np.ndarray:
        accessor = self.document["accessors"][index]
        if "sparse" in accessor or "bufferView" not in accessor:
            raise ValueError("it has sparse arrays")
        view = self.document["bufferViews"][accessor["bufferView"]]
        if view.get("buffer", 0) != 0 or "uri" in self.document["buffers"][0]:
            raise ValueError("its data are in other files")
        kind, width = np.dtype(_TYPES[accessor["componentType"]]), _WIDTHS[accessor["type"]]
        start = view.get("byteOffset", 0) + accessor.get("byteOffset", 0)
        stride = view.get("byteStride", kind.itemsize * width)
        shape, strides = (accessor["count"], width), (stride, kind.itemsize)
        values = np.ndarray(shape, kind, self.binary, start, strides)
        if accessor.get("normalized"):
            return values / np.iinfo(kind).max
        return np.array(values)


def _split(data: bytes) -> tuple[dict[str, Any], bytes]:
    if data[:4] != b"glTF" or len(data) < 20 or struct.unpack("<I", data[4:8])[0] != 2:
        raise ValueError("it is no GLB file of version 2")
    document, binary, place = None, b"", 12
    while place + 8 <= len(data):
        length, kind = struct.unpack("<I4s", data[place : place + 8])
        chunk = data[place + 8 : place + 8 + length]
        if len(chunk) < length:
            raise ValueError("it ends too early")
        if kind == b"JSON":
            document = json.loads(chunk)
        elif kind == b"BIN\0":
            binary = chunk
        place += 8 + length
    if not isinstance(document, dict):
        raise ValueError("it has no JSON part")
    return document, binary


def _local(node: dict[str, Any]) -> np.ndarray:
    if "matrix" in node:
        return np.array(node["matrix"], dtype=np.float64).reshape(4, 4).T
    rotation = quaternion_xyzw_to_matrix(node.get("rotation", (0, 0, 0, 1)))
    matrix = np.eye(4)
    matrix[:3, :3] = rotation * np.asarray(node.get("scale", (1, 1, 1)), dtype=np.float64)
    matrix[:3, 3] = node.get("translation", (0, 0, 0))
    return matrix
