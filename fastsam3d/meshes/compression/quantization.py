"""Writes the vertices of GLB files as integers, with the extension KHR_mesh_quantization (Khronos, ratified).

Positions get 16 bits of the longest side of their mesh's box, so they move by at most half of 1/65535 of it. A node
above the mesh scales them back. Normals and tangents get 8 bits, texture coordinates and colours 16.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastsam3d.meshes.compression.glb_parts import (
    BYTE,
    FLOAT,
    INDEX_BUFFER,
    UNSIGNED_SHORT,
    VERTEX_BUFFER,
    GlbParts,
    smallest_indices,
)

EXTENSION = "KHR_mesh_quantization"
_POSITION_STEPS, _NORMAL_STEPS = 65535, 127


def quantized(data: bytes) -> bytes:
    """Writes a GLB file again with integers in place of floating point.

    Raises:
        ValueError: the data is no GLB file of version 2, or needs extensions already.
    """
    parts = GlbParts(data)
    boxes = _boxes(parts)
    for number, primitive in parts.primitives():
        low, extent = boxes[number]
        primitive["attributes"] = {
            name: _attribute(parts, name, index, low, extent) for name, index in primitive["attributes"].items()
        }
        if "indices" in primitive:
            indices, kind = smallest_indices(parts.old_array(primitive["indices"]))
            accessor = {"componentType": kind, "type": "SCALAR"}
            primitive["indices"] = parts.add_array(indices, accessor, INDEX_BUFFER)
    _scale_back(parts.document, boxes)
    parts.require(EXTENSION)
    return parts.encoded()


def _boxes(parts: GlbParts) -> dict[int, tuple[np.ndarray, float]]:
    """The lower corner and the longest side of each mesh's box; one side for all axes keeps normals as they are."""
    found: dict[int, list[np.ndarray]] = {}
    for number, primitive in parts.primitives():
        found.setdefault(number, []).append(parts.old_array(primitive["attributes"]["POSITION"]))
    boxes = {}
    for number, arrays in found.items():
        points = np.concatenate(arrays).astype(np.float64)
        low = points.min(axis=0)
        boxes[number] = low, float((points.max(axis=0) - low).max()) or 1.0
    return boxes


def _attribute(parts: GlbParts, name: str, index: int, low: np.ndarray, extent: float) -> int:
    old = parts.old_accessor(index)
    accessor: dict[str, Any] = {"type": old["type"], "normalized": True}
    values = parts.old_array(index).astype(np.float64)
    if old["componentType"] != FLOAT:
        return parts.carry_over(index, VERTEX_BUFFER)
    if name == "POSITION":
        steps = np.rint((values - low) / extent * _POSITION_STEPS).astype(np.uint16)
        accessor |= {"min": steps.min(axis=0).tolist(), "max": steps.max(axis=0).tolist()}
        return parts.add_array(steps, accessor | {"componentType": UNSIGNED_SHORT}, VERTEX_BUFFER)
    if name in ("NORMAL", "TANGENT"):
        steps = np.rint(values * _NORMAL_STEPS).clip(-_NORMAL_STEPS, _NORMAL_STEPS).astype(np.int8)
        return parts.add_array(steps, accessor | {"componentType": BYTE}, VERTEX_BUFFER)
    if name.startswith(("TEXCOORD_", "COLOR_")) and values.min(initial=0) >= 0 and values.max(initial=0) <= 1:
        steps = np.rint(values * _POSITION_STEPS).astype(np.uint16)
        return parts.add_array(steps, accessor | {"componentType": UNSIGNED_SHORT}, VERTEX_BUFFER)
    return parts.carry_over(index, VERTEX_BUFFER)


def _scale_back(document: dict[str, Any], boxes: dict[int, tuple[np.ndarray, float]]) -> None:
    """Places each mesh by its box. A node that has a place of its own gets a node below it for that."""
    nodes = document["nodes"]
    for node in list(nodes):
        if "mesh" not in node:
            continue
        low, extent = boxes[node["mesh"]]
        place = {"translation": low.tolist(), "scale": [extent] * 3}
        if not {"matrix", "rotation", "translation", "scale", "children"} & set(node):
            node.update(place)
            continue
        node["children"] = [*node.get("children", []), len(nodes)]
        nodes.append({"name": node.get("name", "mesh"), "mesh": node.pop("mesh"), **place})
