"""Writes the meshes of GLB files in Draco's coding, with the extension KHR_draco_mesh_compression (Khronos, ratified).

The coding itself is Google's Draco, in the package DracoPy. Vertices and faces come in another order. Points and
Gaussians stay as they are.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastsam3d.basics.optional import optional_module
from fastsam3d.meshes.compression.glb_parts import (
    FLOAT,
    INDEX_BUFFER,
    TRIANGLES,
    UNSIGNED_INT,
    UNSIGNED_SHORT,
    VERTEX_BUFFER,
    GlbParts,
)

EXTENSION = "KHR_draco_mesh_compression"
EXTRA, PURPOSE = "draco", "compression with Draco"
POSITION_BITS, UV_BITS, NORMAL_BITS = 14, 14, 10
"""Bits of each number: of the longest side of the box, of the picture, and of a normal on an octahedron."""
LEVEL = 7
"""Of Draco's levels 0 to 10: higher ones are slower and smaller."""
_TANGENT, _COLOR = 100, 101
"""Numbers that attributes without a kind of their own get in Draco's data."""


def draco_compressed(data: bytes) -> bytes:
    """Writes a GLB file again with its triangles in Draco's coding.

    Raises:
        ValueError: the data is no GLB file of version 2, or needs extensions already.
        UserError: DracoPy is not installed.
    """
    optional_module("DracoPy", PURPOSE, EXTRA)
    parts = GlbParts(data)
    for _, primitive in parts.primitives():
        if primitive.get("mode", TRIANGLES) == TRIANGLES and "indices" in primitive:
            _compress(parts, primitive)
            parts.require(EXTENSION)
            continue
        attributes = primitive["attributes"]
        primitive["attributes"] = {name: parts.carry_over(index, VERTEX_BUFFER) for name, index in attributes.items()}
        if "indices" in primitive:
            primitive["indices"] = parts.carry_over(primitive["indices"], INDEX_BUFFER)
    return parts.encoded()


def _compress(parts: GlbParts, primitive: dict[str, Any]) -> None:
    draco = optional_module("DracoPy", PURPOSE, EXTRA)
    attributes = primitive["attributes"]
    values = {name: parts.old_array(index) for name, index in attributes.items()}
    faces = parts.old_array(primitive["indices"]).reshape(-1, 3).astype(np.uint32)
    generic: dict[int, np.ndarray] = {}
    if "TANGENT" in values:
        generic[_TANGENT] = values["TANGENT"].astype(np.float32)
    if "COLOR_0" in values:
        generic[_COLOR] = np.rint(values["COLOR_0"].astype(np.float64).clip(0, 1) * 65535).astype(np.uint16)
    coded = draco.encode(
        values["POSITION"].astype(np.float32),
        faces,
        quantization_bits=POSITION_BITS,
        compression_level=LEVEL,
        tex_coord=_wide(values.get("TEXCOORD_0")),
        normals=_wide(values.get("NORMAL")),
        tex_coord_quantization_bits=UV_BITS,
        normal_quantization_bits=NORMAL_BITS,
        generic_attributes=generic or None,
    )
    # Draco chooses the order and the number of the vertices, and the numbers of the attributes.
    decoded = draco.decode(coded)
    kinds = {0: "POSITION", 1: "NORMAL", 3: "TEXCOORD_0"}
    numbers: dict[str, int] = {}
    for each in decoded.attributes:
        own = {_TANGENT: "TANGENT", _COLOR: "COLOR_0"}.get(each["unique_id"])
        numbers[own or kinds[int(each["attribute_type"])]] = each["unique_id"]
    points = np.asarray(decoded.points, dtype=np.float32)
    primitive["attributes"] = {}
    for name in numbers:
        accessor: dict[str, Any] = {
            "componentType": UNSIGNED_SHORT if name == "COLOR_0" else FLOAT,
            "count": len(points),
            "type": parts.old_accessor(attributes[name])["type"],
        }
        if name == "COLOR_0":
            accessor["normalized"] = True
        if name == "POSITION":
            accessor |= {"min": points.min(axis=0).tolist(), "max": points.max(axis=0).tolist()}
        primitive["attributes"][name] = parts.add_accessor(accessor)
    count = 3 * len(np.asarray(decoded.faces).reshape(-1, 3))
    primitive["indices"] = parts.add_accessor({"componentType": UNSIGNED_INT, "count": count, "type": "SCALAR"})
    primitive["extensions"] = {EXTENSION: {"bufferView": parts.add_view(coded), "attributes": numbers}}


def _wide(values: np.ndarray | None) -> np.ndarray | None:
    return None if values is None else values.astype(np.float64)  # DracoPy takes no other floating point for these
