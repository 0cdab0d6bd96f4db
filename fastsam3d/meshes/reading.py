"""Files of 3D objects to meshes, for looking at them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fastsam3d.errors import UserError
from fastsam3d.meshes.gaussians import SPHERICAL_HARMONIC_0
from fastsam3d.meshes.geometry import Z_UP_TO_Y_UP, vertex_normals
from fastsam3d.meshes.gltf_reading import read_glb
from fastsam3d.meshes.mesh import Mesh, TexturedMesh

SUFFIXES = (".glb", ".obj", ".stl", ".ply")
GREY = 0.7
_PLY_TYPES = {"float": "<f4", "float32": "<f4", "double": "<f8", "uchar": "u1", "uint8": "u1", "int": "<i4"}


def read_model(path: str | Path) -> list[tuple[str, Mesh]]:
    """(name, mesh) of everything in a file, z up. Points and Gaussians come as meshes without faces.

    GLB and OBJ are taken to be y up, STL and PLY z up.

    Raises:
        UserError: missing, unreadable, of another kind, or empty.
    """
    path = Path(path).expanduser()
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UserError(f"{path} is of a kind that cannot be shown; give one of {', '.join(SUFFIXES)}.")
    if not path.is_file():
        raise UserError(f"there is no file {path}. Check the path.")
    try:
        if suffix == ".glb":
            found = read_glb(path.read_bytes())
        elif suffix == ".ply" and (splats := _read_gaussians(path.read_bytes())) is not None:
            found = [(path.stem, splats)]
        else:
            found = _read_with_trimesh(path)
    except UserError:
        raise
    except Exception as error:  # whatever a reader says of a damaged file
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{path} cannot be read: {reason}. Write it again.") from None
    found = [(name, mesh) for name, mesh in found if len(mesh.vertices)]
    if not found:
        raise UserError(f"{path} holds nothing that can be shown.")
    return found


def _read_with_trimesh(path: Path) -> list[tuple[str, Mesh]]:
    import trimesh

    loaded: Any = trimesh.load(path, process=False)
    parts = loaded.geometry.items() if isinstance(loaded, trimesh.Scene) else [(path.stem, loaded)]
    turn = Z_UP_TO_Y_UP.T if path.suffix.lower() == ".obj" else np.eye(3)
    return [(name, _converted(part, turn)) for name, part in parts]


def _converted(part: Any, turn: np.ndarray) -> Mesh:
    vertices = (np.asarray(part.vertices, dtype=np.float64) @ turn).astype(np.float32)
    faces = np.asarray(getattr(part, "faces", np.zeros((0, 3))), dtype=np.int64).reshape(-1, 3)
    colors: np.ndarray = np.full((len(vertices), 3), GREY, dtype=np.float32)
    visual: Any = getattr(part, "visual", None)
    own = getattr(part, "colors", None) if visual is None or not len(faces) else None
    if visual is not None and getattr(visual, "kind", None) == "vertex":
        own = visual.vertex_colors
    if own is not None and len(own) == len(vertices):
        colors = np.asarray(own)[:, :3].astype(np.float32) / 255
    picture = getattr(getattr(visual, "material", None), "image", None)
    uv = getattr(visual, "uv", None)
    if picture is None or uv is None or not len(faces):
        return Mesh(vertices, faces, colors)
    # trimesh counts from the bottom of the picture.
    places = np.stack([uv[:, 0], 1 - uv[:, 1]], axis=1).astype(np.float32)
    pixels = np.asarray(picture.convert("RGB"))
    return TexturedMesh(vertices, faces, colors, vertex_normals(vertices, faces), places, pixels)


def _read_gaussians(data: bytes) -> Mesh | None:
    """Centres and colours of a 3DGS PLY; None of any other PLY."""
    end = data.find(b"end_header\n")
    header = data[: max(end, 0)].decode("ascii", "replace").split("\n")
    if "property float f_dc_0" not in header or "format binary_little_endian 1.0" not in header:
        return None
    count = next(int(line.split()[2]) for line in header if line.startswith("element vertex"))
    fields = [line.split()[1:] for line in header if line.startswith("property")]
    layout = np.dtype([(name, _PLY_TYPES[kind]) for kind, name in fields])
    record = np.frombuffer(data, layout, count, end + len(b"end_header\n"))
    vertices = np.stack([record[axis] for axis in "xyz"], axis=1).astype(np.float32)
    colors: np.ndarray = 0.5 + SPHERICAL_HARMONIC_0 * np.stack([record[f"f_dc_{k}"] for k in range(3)], axis=1)
    return Mesh(vertices, np.zeros((0, 3), dtype=np.int64), np.clip(colors, 0, 1).astype(np.float32))
