"""Encodes Gaussians as binary glTF with the extension KHR_gaussian_splatting (Khronos, ratified 2026).

Programs that do not know the extension show coloured points.
"""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np

from fastsam3d.meshes.gaussians import SPHERICAL_HARMONIC_0
from fastsam3d.meshes.geometry import Z_UP_TO_Y_UP, srgb_to_linear
from fastsam3d.meshes.splats.splats import splats_to_write

EXTENSION = "KHR_gaussian_splatting"
_FLOAT, _VERTEX_BUFFER, _POINTS = 5126, 34962, 0


def splats_glb(gaussian: Any, name: str = "object") -> bytes:
    """Encodes Gaussians as a `.glb` file, y up, as a node called `name`; the same input gives the same bytes.

    Scales are standard deviations, opacities 0..1, rotations unit quaternions (x, y, z, w), colours the constant
    spherical harmonic. `COLOR_0` is for programs without the extension: linear light with the opacity.

    Args:
        gaussian: Gaussians of any class that `splats_of` reads, in the object frame (z up).
        name: of the node.

    Raises:
        UserError: there is no Gaussian with finite values.
    """
    splats = splats_to_write(gaussian)
    # Rows of `axes` are the axes in the object frame; a rotation's columns are the axes in the file's frame.
    turned = (splats.axes.double().numpy() @ Z_UP_TO_Y_UP).transpose(0, 2, 1)
    colors, opacity = splats.colors.numpy(), splats.opacities.numpy()
    columns: dict[str, tuple[str, np.ndarray]] = {
        "POSITION": ("VEC3", splats.centers.numpy() @ Z_UP_TO_Y_UP),
        "COLOR_0": ("VEC4", np.concatenate([srgb_to_linear(colors), opacity[:, None]], axis=1)),
        f"{EXTENSION}:ROTATION": ("VEC4", _quaternions(turned)),
        f"{EXTENSION}:SCALE": ("VEC3", splats.deviations.numpy()),
        f"{EXTENSION}:OPACITY": ("SCALAR", opacity),
        f"{EXTENSION}:SH_DEGREE_0_COEF_0": ("VEC3", (colors - 0.5) / SPHERICAL_HARMONIC_0),
    }
    data, attributes = bytearray(), {}
    views: list[dict[str, Any]] = []
    accessors: list[dict[str, Any]] = []
    for key, (kind, values) in columns.items():
        part = np.ascontiguousarray(values, dtype="<f4")
        attributes[key] = len(accessors)
        accessor = {"bufferView": len(views), "componentType": _FLOAT, "count": len(part), "type": kind}
        if key == "POSITION":
            accessor |= {"min": part.min(axis=0).tolist(), "max": part.max(axis=0).tolist()}
        accessors.append(accessor)
        views.append({"buffer": 0, "byteOffset": len(data), "byteLength": part.nbytes, "target": _VERTEX_BUFFER})
        data += part.tobytes()
    described = {"kernel": "ellipse", "colorSpace": "srgb_rec709_display"}
    primitive = {"attributes": attributes, "mode": _POINTS, "extensions": {EXTENSION: described}}
    document = {
        "asset": {"version": "2.0", "generator": "fastsam3d"},
        "extensionsUsed": [EXTENSION],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"name": name, "mesh": 0}],
        "meshes": [{"name": name, "primitives": [primitive]}],
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": len(data)}],
    }
    text = json.dumps(document, separators=(",", ":"), sort_keys=True, allow_nan=False).encode("ascii")
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(data), b"BIN\0") + bytes(data)
    return b"glTF" + struct.pack("<II", 2, 12 + len(chunks)) + chunks


def _quaternions(matrices: np.ndarray) -> np.ndarray:
    """Unit quaternions (x, y, z, w) of rotation matrices `[G, 3, 3]`, which act on columns; `[G, 4]`."""
    import torch

    from fastsam3d.meshes.rotations import matrix_to_quaternion

    return np.roll(matrix_to_quaternion(torch.from_numpy(np.ascontiguousarray(matrices))).numpy(), -1, axis=1)
