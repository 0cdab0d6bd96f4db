"""Reads binary glTF 2.0 (GLB) as meshes: our own files, and others that hold plain triangles or points."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np

from fastsam3d.basics.picture_files import MOST_TEXTURE_PIXELS, texture_pixels
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
READ_EXTENSIONS = ("KHR_mesh_quantization",)
"""Extensions that a file may need: this one only allows other types of numbers, which are all read."""
MOST_NODES, MOST_PRIMITIVES, MOST_REPEATED = 50_000, 4096, 2_000_000
"""Bounds of what a file shows: nodes and primitives as often as they are shown, and elements of arrays beyond the
number of bytes that the file has."""


def up_of(data: bytes) -> np.ndarray | None:
    """Reads the direction of up that our scenes store, a unit vector `[3]` in the frame of `read_glb`'s meshes.

    Returns None for any other file.
    """
    asset = split_glb(data)[0].get("asset")
    extras = asset.get("extras") if isinstance(asset, dict) else None
    up = extras.get("up") if isinstance(extras, dict) else None
    if not isinstance(up, list) or len(up) != 3 or not all(type(value) in (int, float) for value in up):
        return None
    if not all(abs(value) <= 1 + 1e-6 for value in up):  # NaN and numbers beyond floating point too
        return None
    return np.array(up, dtype=np.float64) @ Z_UP_TO_Y_UP.T if np.isclose(np.linalg.norm(up), 1.0) else None


def read_glb(data: bytes) -> list[tuple[str, Mesh]]:
    """Reads (node name, mesh) of every triangle or point primitive, in the file's frame turned to z up.

    Points come as meshes without faces. If a primitive has neither vertex colours nor a texture, its vertices get the
    colour of its material.

    Raises:
        ValueError: the data is no GLB file, or needs other extensions than `READ_EXTENSIONS`, sparse arrays or other
            files, which are not read here.
    """
    document, binary = split_glb(data)
    required = [name for name in document.get("extensionsRequired", []) if name not in READ_EXTENSIONS]
    if required:
        raise ValueError(f"it needs the glTF extension {required[0]}")
    reader = _Reader(document, binary)
    # All are counted before one is read: nodes that share their children can show a small file endlessly often.
    planned: list[tuple[str, dict[str, Any], np.ndarray]] = []
    nodes = document.get("nodes", [])
    scenes = document.get("scenes")
    roots = _entry(scenes, document.get("scene", 0), "scene").get("nodes", []) if scenes else range(len(nodes))

    visited = 0

    def visit(index: int, parent: np.ndarray, depth: int) -> None:
        nonlocal visited
        visited += 1
        if depth > _DEEPEST:
            raise ValueError("its nodes are nested too deeply")
        if visited > MOST_NODES:
            raise ValueError(f"it shows more than {MOST_NODES} nodes")
        node = _entry(nodes, index, "node")
        matrix = parent @ _local(node)
        if "mesh" in node:
            for primitive in _entry(document["meshes"], node["mesh"], "mesh")["primitives"]:
                planned.append((str(node.get("name", f"node {index}"))[:255], primitive, matrix))
                if len(planned) > MOST_PRIMITIVES:
                    raise ValueError(f"it shows more than {MOST_PRIMITIVES} primitives")
        for child in node.get("children", []):
            visit(child, matrix, depth + 1)

    for root in roots:
        visit(root, np.eye(4), 0)
    found = ((name, reader.mesh(primitive, matrix)) for name, primitive, matrix in planned)
    return [(name, mesh) for name, mesh in found if mesh is not None]


class _Reader:
    """Reads primitives of one document."""

    def __init__(self, document: dict[str, Any], binary: bytes) -> None:
        self.document, self.binary = document, binary
        self._numbers, self._texels = 0, 0
        self._pictures: dict[tuple[int, bytes], np.ndarray] = {}

    def mesh(self, primitive: dict[str, Any], matrix: np.ndarray) -> Mesh | None:
        """Reads one primitive; returns None for lines and strips. `matrix [4, 4]` places it in the scene.

        Raises:
            ValueError: it is damaged, or the file shows more than the bounds of this module allow.
        """
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
            if len(faces) and not (faces.min() >= 0 and faces.max() < len(vertices)):
                raise ValueError("a face refers to a vertex that is not there")
            if np.linalg.det(matrix[:3, :3]) < 0:
                faces = faces[:, ::-1].copy()
        surface = self._material(primitive)
        factor = np.asarray(surface.get("baseColorFactor", [1, 1, 1, 1]), dtype=np.float64)[:3]
        own = self._attribute(primitive, "COLOR_0")
        if own is not None and len(own) != len(vertices):
            raise ValueError("it has another number of colours than of vertices")
        linear = np.tile(factor, (len(vertices), 1)) if own is None else own[:, :3] * factor
        colors = linear_to_srgb(linear).astype(np.float32)
        uv, texture = self._attribute(primitive, "TEXCOORD_0"), surface.get("baseColorTexture")
        if uv is None or texture is None or not len(faces):
            return Mesh(vertices, faces, colors)
        picture = self._picture(_entry(self.document["textures"], texture["index"], "texture")["source"], factor)
        if len(uv) != len(vertices):
            raise ValueError("it has another number of texture coordinates than of vertices")
        return TexturedMesh(
            vertices, faces, colors, vertex_normals(vertices, faces), uv[:, :2].astype(np.float32), picture
        )

    def _material(self, primitive: dict[str, Any]) -> dict[str, Any]:
        if "material" not in primitive:
            return {}
        return _entry(self.document["materials"], primitive["material"], "material").get("pbrMetallicRoughness", {})

    def _picture(self, index: int, factor: np.ndarray) -> np.ndarray:
        key = (index, factor.tobytes())
        if key not in self._pictures:  # many primitives may share one picture
            self._pictures[key] = self._new_picture(index, factor)
        return self._pictures[key]

    def _new_picture(self, index: int, factor: np.ndarray) -> np.ndarray:
        entry = _entry(self.document["images"], index, "image")
        if "bufferView" not in entry:
            raise ValueError("its textures are in other files")
        view = _entry(self.document["bufferViews"], entry["bufferView"], "buffer view")
        start, length = _whole(view.get("byteOffset", 0)), _whole(view["byteLength"])
        pixels = texture_pixels(self.binary[start : start + length])
        self._texels += pixels.shape[0] * pixels.shape[1]
        if self._texels > MOST_TEXTURE_PIXELS:
            raise ValueError(f"its textures have more than {MOST_TEXTURE_PIXELS / 1e6:.0f} megapixels together")
        if np.all(factor == 1):
            return pixels
        # For each of the 256 values once: a large texture in floating point takes gigabytes.
        levels = srgb_to_linear(np.arange(256)[:, None] / 255) * factor
        tables = np.rint(linear_to_srgb(levels) * 255).astype(np.uint8)
        return np.stack([tables[pixels[..., channel], channel] for channel in range(3)], axis=2)

    def _attribute(self, primitive: dict[str, Any], name: str) -> np.ndarray | None:
        index = primitive["attributes"].get(name)
        return None if index is None else self._array(index).astype(np.float64)

    def _array(self, index: int) -> np.ndarray:
        accessor = _entry(self.document["accessors"], index, "accessor")
        if "sparse" in accessor or "bufferView" not in accessor:
            raise ValueError("it has sparse arrays")
        view = _entry(self.document["bufferViews"], accessor["bufferView"], "buffer view")
        if view.get("buffer", 0) != 0 or "uri" in self.document["buffers"][0]:
            raise ValueError("its data are in other files")
        kind, width = np.dtype(_TYPES[accessor["componentType"]]), _WIDTHS[accessor["type"]]
        count, offset = _whole(accessor["count"]), _whole(accessor.get("byteOffset", 0))
        start, length = _whole(view.get("byteOffset", 0)), _whole(view["byteLength"])
        stride = _whole(view.get("byteStride", kind.itemsize * width))
        if stride < kind.itemsize * width:
            raise ValueError(f"a stride of {stride} bytes is too small for its values")
        if start + length > len(self.binary) or (
            count and offset + stride * (count - 1) + kind.itemsize * width > length
        ):
            raise ValueError("an array reaches beyond its data")
        self._numbers += count
        # Every element has a byte of its own in the file, but for what is shown several times.
        if self._numbers > len(self.binary) + MOST_REPEATED:
            raise ValueError(f"it shows the same arrays again and again, more than {MOST_REPEATED} elements in all")
        values = np.ndarray((count, width), kind, self.binary, start + offset, (stride, kind.itemsize))
        if accessor.get("normalized"):
            return np.maximum(values / np.iinfo(kind).max, -1.0)
        return np.array(values)


def _entry(entries: Any, index: Any, what: str) -> Any:
    if type(index) is not int or not isinstance(entries, list) or not 0 <= index < len(entries):
        raise ValueError(f"it refers to a {what} that is not there")
    if not isinstance(entries[index], dict):
        raise ValueError(f"a {what} of it is damaged")
    return entries[index]


def _whole(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 40:
        raise ValueError("a count or place in it is no whole number of at least 0")
    return value


def split_glb(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Splits a GLB file into its JSON part and its binary chunk.

    Raises:
        ValueError: it is no GLB file of version 2, or it is damaged.
    """
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
