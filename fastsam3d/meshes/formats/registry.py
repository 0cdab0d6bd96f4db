"""Registers the file formats of 3D objects: each names its suffix, its axes, and how it is written and read."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from fastsam3d.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from fastsam3d.meshes.gaussians import Gaussian
    from fastsam3d.meshes.mesh import Mesh

Y_UP = {"up": "+y", "front": "+z", "right": "+x"}
"""Axes of glTF. `right` is the right of somebody who looks at the front."""
Z_UP = {"up": "+z", "front": "-y", "right": "+x"}
"""Axes of the object frame, in which meshes and Gaussians are reconstructed."""
OBJECT_UNITS = "object units: the cube that an object is reconstructed in has the side 1; layout.json gives the scale"

FACES, POINTS, GAUSSIANS = "faces", "points of the surface", "Gaussians"
"""What a written file can hold."""


def _no_files(mesh: Mesh, name: str) -> Mapping[str, bytes]:
    return {}


@dataclass(frozen=True)
class MeshFormat:
    """A file format of single 3D objects.

    Leave out the functions for what the format cannot do: a format without `read` is written only.

    Attributes:
        suffix: lower case, with its dot, as ".glb". Without the dot it is the format's name in `--export`.
        axes: directions of "up", "front" and "right" in the file: `Y_UP`, `Z_UP`, or others.
        colours: how the file encodes colours, for the report.
        encode_mesh: `(mesh, name) -> bytes`, the file of a mesh with faces. The mesh comes in the object frame
            (z up); the function turns it to `axes`. `name` is the file's name without its suffix.
        encode_gaussians: `gaussians -> bytes`, the file of Gaussians. They are preferred where a result has both.
        encode_companions: `(mesh, name) -> {ending: bytes}`, files that `encode_mesh` refers to, as a material and its
            texture. They lie beside its file, are called name + ending, and are written first.
        read: `path -> [(part name, mesh)]`, turned to z up; points as meshes without faces. It may raise any
            exception on a damaged file: `read_model` makes a `UserError` of it.
        read_up: `bytes -> unit vector [3]`, the direction of up in the meshes of `read`, None where the file does not
            say it. A format without this function says that all of its files are upright.
        samples_surface: the file holds points of a mesh's surface in place of its faces.
        units: length of one unit in the file.
        file_ending: what the names of its files end with, where that is not `suffix`: "_splats.glb". Then `suffix`
            without its dot is the format's name only.
    """

    suffix: str
    axes: Mapping[str, str]
    colours: str
    encode_mesh: Callable[[Mesh, str], bytes] | None = None
    encode_gaussians: Callable[[Gaussian], bytes] | None = None
    encode_companions: Callable[[Mesh, str], Mapping[str, bytes]] = field(default=_no_files)
    read: Callable[[Path], Sequence[tuple[str, Mesh]]] | None = None
    read_up: Callable[[bytes], np.ndarray | None] | None = None
    samples_surface: bool = False
    units: str = OBJECT_UNITS
    file_ending: str | None = None

    @property
    def ending(self) -> str:
        """Returns what the names of its files end with."""
        return self.file_ending or self.suffix

    @property
    def name(self) -> str:
        """Returns the suffix without its dot, as in `--export glb`."""
        return self.suffix[1:]

    @property
    def can_write(self) -> bool:
        """Tells whether it writes meshes, Gaussians, or both."""
        return self.encode_mesh is not None or self.encode_gaussians is not None

    def content(self, has_mesh: bool, has_gaussians: bool) -> str | None:
        """Tells what the file of a result holds: `GAUSSIANS`, `FACES`, `POINTS`, or None if nothing can be written.

        Args:
            has_mesh, has_gaussians: what the result has.
        """
        if has_gaussians and self.encode_gaussians is not None:
            return GAUSSIANS
        if has_mesh and self.encode_mesh is not None:
            return POINTS if self.samples_surface else FACES
        return None

    def described(self) -> dict[str, str]:
        """Describes axes and colours for the report; units too if they are not `OBJECT_UNITS`."""
        units = {} if self.units == OBJECT_UNITS else {"units": self.units}
        return {**self.axes, "colours": self.colours, **units}


_FORMATS: dict[str, MeshFormat] = {}
_REPLACED: set[str] = set()
_DISCOVERY = Lock()
_discovered = False


def register_format(file_format: MeshFormat, replace: bool = False) -> MeshFormat:
    """Adds a format: `export`, `--export`, `view` and `turntable` know its suffix from then on.

    Args:
        file_format: a suffix can be registered once.
        replace: the format takes the place of another with the same suffix, also of one that is registered later.

    Returns:
        The format.

    Raises:
        ValueError: the suffix is taken or not written as ".glb" is, or the format neither writes nor reads.
    """
    suffix = file_format.suffix
    if not (suffix.startswith(".") and suffix[1:].isalnum() and suffix == suffix.lower()):
        raise ValueError(f"the suffix {suffix!r} must be a dot with lower-case letters or digits, as '.glb'")
    if not file_format.can_write and file_format.read is None:
        raise ValueError(f"the mesh format {suffix!r} has no function that writes or reads it")
    known = _FORMATS.get(suffix)
    if known is None or replace:
        _FORMATS[suffix] = file_format
        _REPLACED.update([suffix] if replace else [])
    elif known != file_format and suffix not in _REPLACED:
        raise ValueError(f"the mesh format {suffix!r} is registered already; register yours with replace=True")
    return file_format


def mesh_formats() -> tuple[MeshFormat, ...]:
    """Lists all formats by suffix; those that take Gaussians come last."""
    _discover()
    return tuple(sorted(_FORMATS.values(), key=lambda known: (known.encode_gaussians is not None, known.suffix)))


def _discover() -> None:
    """Imports the modules of this folder, once: each registers its format."""
    global _discovered
    with _DISCOVERY:
        if not _discovered:
            package = __name__.rpartition(".")[0]
            for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
                import_module(f"{package}.{module.name}")
            _discovered = True


def written_formats() -> tuple[MeshFormat, ...]:
    """Lists the formats that can be written."""
    return tuple(known for known in mesh_formats() if known.can_write)


def read_formats() -> tuple[MeshFormat, ...]:
    """Lists the formats that can be read."""
    return tuple(known for known in mesh_formats() if known.read is not None)


def format_to_write(path: str | Path) -> MeshFormat:
    """Finds the format of a file to be written, by the path's suffix.

    Raises:
        UserError: no format with this suffix can be written.
    """
    known = {each.ending: each for each in written_formats()}
    # The longest first: "_splats.glb" is one that ".glb" ends with, too.
    for ending in sorted(known, key=len, reverse=True):
        if Path(path).name.lower().endswith(ending):
            return known[ending]
    raise UserError(f"{path} has no known suffix; use one of {', '.join(known)}.")


def format_to_read(path: str | Path) -> MeshFormat:
    """Finds the format of a file to be read, by the path's suffix.

    Raises:
        UserError: no format with this suffix can be read.
    """
    known = {each.suffix: each for each in read_formats()}
    try:
        return known[Path(path).suffix.lower()]
    except KeyError:
        raise UserError(f"{path} is of a kind that cannot be shown; give one of {', '.join(known)}.") from None


def suffix_list(formats: Sequence[MeshFormat]) -> str:
    """Suffixes for a sentence: ".glb, .obj or .stl"."""
    *rest, last = (known.suffix for known in formats)
    return f"{', '.join(rest)} or {last}" if rest else last
