"""Reads OBJ files of any program, with their material files and textures, which must lie beside or below them."""

from __future__ import annotations

import logging
from array import array
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath

import numpy as np

from fastsam3d.basics.picture_files import MOST_TEXTURE_PIXELS, texture_pixels
from fastsam3d.meshes.geometry import Z_UP_TO_Y_UP, vertex_normals
from fastsam3d.meshes.mesh import Mesh, TexturedMesh
from fastsam3d.meshes.parsing.polygons import grey

logger = logging.getLogger(__name__)

LARGEST_MATERIALS, LARGEST_TEXTURE = 1 << 24, 1 << 28
"""Bytes of a material file and of a texture's file."""
MOST_MATERIALS = 1024
_OPTIONS = {"-s": 3, "-o": 3, "-t": 3, "-mm": 2, "-bm": 1, "-blendu": 1, "-blendv": 1, "-boost": 1, "-texres": 1,
            "-clamp": 1, "-imfchan": 1, "-type": 1, "-cc": 1}  # fmt: skip
"""Options before a texture's name and the number of their values."""


@dataclass
class _Faces:
    """Corners of triangles of one material, three a triangle: indices of places and of texture coordinates, from 0."""

    places: array = field(default_factory=lambda: array("q"))
    uvs: array = field(default_factory=lambda: array("q"))


def read_obj_file(path: Path) -> list[tuple[str, Mesh]]:
    """Reads one mesh for each material, turned from y up to z up; points where there are no faces.

    A texture that is missing, elsewhere or unreadable is left out with a warning in the log.

    Raises:
        ValueError: a line that cannot be read, or an index out of range.
    """
    places, uvs, groups, libraries = _parse(path.read_bytes())
    if places.shape[1] < 3:
        return []
    vertices = (places[:, :3] @ Z_UP_TO_Y_UP.T).astype(np.float32)
    colours = grey(len(vertices))
    if places.shape[1] >= 6:
        own = np.nan_to_num(places[:, -3:], nan=0.7)
        colours = np.clip(own / (255.0 if own.max(initial=0) > 1 else 1.0), 0, 1).astype(np.float32)
    groups = {name: faces for name, faces in groups.items() if faces.places}
    if not groups:
        return [(path.stem, Mesh(vertices, np.zeros((0, 3), dtype=np.int64), colours))]
    materials = _materials(path.parent, libraries) if any(groups) else {}
    textures: dict[str, np.ndarray | None] = {}
    result = []
    for material, faces in groups.items():
        name = path.stem if len(groups) == 1 else f"{path.stem} {material}".strip()
        result.append((name, _mesh(path.parent, faces, vertices, colours, uvs, materials.get(material, {}), textures)))
    return result


def _parse(data: bytes) -> tuple[np.ndarray, np.ndarray, dict[str, _Faces], list[str]]:
    """Places `[V, 3, 4, 6 or 7]`, texture coordinates `[T, 2]`, faces by material, and names of material files."""
    places, uvs, groups = array("d"), array("d"), {"": _Faces()}
    libraries: list[str] = []
    width, current = 0, groups[""]
    for line in data.replace(b"\\\r\n", b" ").replace(b"\\\n", b" ").splitlines():
        words = line.split()
        if not words:
            continue
        if words[0] == b"v":
            width = width or min(len(words) - 1, 7)
            numbers = [float(word) for word in words[1:8]]
            # A colour that only some vertices have stays unknown for the others.
            places.extend(numbers[:width] if len(numbers) >= width else numbers + [np.nan] * (width - len(numbers)))
        elif words[0] == b"vt":
            uvs.extend((float(words[1]), float(words[2]) if len(words) > 2 else 0.0))
        elif words[0] == b"f":
            corners = [_corner(word, len(places) // width if width else 0, len(uvs) // 2) for word in words[1:]]
            for n in range(1, len(corners) - 1):
                for place, uv in (corners[0], corners[n], corners[n + 1]):
                    current.places.append(place)
                    current.uvs.append(uv)
        elif words[0] == b"usemtl":
            name = _rest(line)
            if name not in groups and len(groups) >= MOST_MATERIALS:
                raise ValueError(f"it has more than {MOST_MATERIALS} materials")
            current = groups.setdefault(name, _Faces())
        elif words[0] == b"mtllib" and len(libraries) < 16:
            libraries.append(_rest(line))
    if width in (1, 2):
        raise ValueError("its vertices have no x, y and z")
    return np.array(places).reshape(-1, width or 3), np.array(uvs).reshape(-1, 2), groups, libraries


def _corner(word: bytes, places: int, uvs: int) -> tuple[int, int]:
    """Indices of a face's corner (`place/uv/normal`) from 0; -1 for no texture coordinate."""
    parts = word.split(b"/")
    place = int(parts[0])
    place = place - 1 if place > 0 else places + place
    uv = int(parts[1]) if len(parts) > 1 and parts[1] else 0
    uv = uv - 1 if uv >= 0 else uvs + uv
    if not 0 <= place < places or not -1 <= uv < uvs:
        raise ValueError("a face refers to a vertex that is not there")
    return place, uv


def _rest(line: bytes) -> str:
    """What stands after the first word, blanks inside kept."""
    parts = line.split(None, 1)
    return parts[1].strip().decode("utf-8", "surrogateescape") if len(parts) > 1 else ""


def _mesh(
    folder: Path,
    faces: _Faces,
    vertices: np.ndarray,
    colours: np.ndarray,
    uvs: np.ndarray,
    material: dict[str, str],
    textures: dict[str, np.ndarray | None],
) -> Mesh:
    corners = np.stack([np.array(faces.places), np.array(faces.uvs)], axis=1)
    name = material.get("map_kd", "")
    if name and name not in textures:
        textures[name] = _texture(folder, name, sum(known.size for known in textures.values() if known is not None))
    texture = textures.get(name) if name else None
    if texture is None or not len(uvs) or (corners[:, 1] < 0).all():
        used, index = np.unique(corners[:, 0], return_inverse=True)
        return Mesh(vertices[used], index.reshape(-1, 3).astype(np.int64), colours[used])
    # A vertex with several texture coordinates becomes several; its normal is that of the surface without seams.
    pairs, index = np.unique(corners, axis=0, return_inverse=True)
    normals = vertex_normals(vertices, corners[:, 0].reshape(-1, 3))[pairs[:, 0]]
    places = np.where(pairs[:, 1:] < 0, 0.0, uvs[pairs[:, 1]])
    places[:, 1] = 1 - places[:, 1]  # OBJ counts from the bottom of the picture
    triangles = index.reshape(-1, 3).astype(np.int64)
    picked = pairs[:, 0]
    return TexturedMesh(
        vertices[picked], triangles, colours[picked], normals, np.nan_to_num(places).astype(np.float32), texture
    )


def _materials(folder: Path, libraries: list[str]) -> dict[str, dict[str, str]]:
    """Values by key in lower case, by material."""
    found: dict[str, dict[str, str]] = {}
    for library in libraries:
        # The whole rest of the line is one name with blanks, or several names.
        whole = _beside(folder, library)
        files = [whole] if whole else [_beside(folder, name) for name in library.split()]
        for file in files:
            if file is None or file.stat().st_size > LARGEST_MATERIALS:
                logger.warning("the material file %.200r is not beside the OBJ file or too large; left out", library)
                continue
            own: dict[str, str] = {}
            for line in file.read_bytes().splitlines():
                key = line.split(None, 1)[0].decode("latin-1").lower() if line.strip() else ""
                if key == "newmtl":
                    own = found.setdefault(_rest(line), {})
                elif key:
                    own[key] = _rest(line)
    return found


def _texture(folder: Path, text: str, before: int) -> np.ndarray | None:
    """Pixels of a texture, uint8 `[H, W, 3]`; None with a warning where there are none. `before` are read already."""
    file = _beside(folder, text)
    if file is None:
        words = text.split()
        while words and words[0].lower() in _OPTIONS:
            words = words[1 + _OPTIONS[words[0].lower()] :]
        file = _beside(folder, " ".join(words))
    try:
        if file is None:
            raise ValueError("it is not beside the OBJ file")
        if file.stat().st_size > LARGEST_TEXTURE or before > MOST_TEXTURE_PIXELS * 3:
            raise ValueError("it is too large")
        return texture_pixels(file.read_bytes())
    except Exception as error:  # decoders raise many kinds on a damaged file
        logger.warning("the texture %.200r is left out: %s", text, (str(error) or type(error).__name__)[:200])
        return None


def _beside(folder: Path, name: str) -> Path | None:
    """A regular file of the folder or below it, by its path there, or by the last part of a path elsewhere."""
    root = folder.resolve()
    for candidate in (name.replace("\\", "/"), PureWindowsPath(name).name):
        try:
            path = (root / candidate).resolve()
            if candidate and path.is_relative_to(root) and path.is_file():
                return path
        except (OSError, ValueError):
            continue
    return None
