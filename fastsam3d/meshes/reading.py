"""Reads files of 3D objects as meshes, to look at them. The registered formats say what can be read."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fastsam3d.basics.paths import require_file, user_path
from fastsam3d.errors import UserError
from fastsam3d.meshes.formats import format_to_read
from fastsam3d.meshes.mesh import Mesh
from fastsam3d.meshes.parsing.checks import checked


def read_model(path: str | Path) -> list[tuple[str, Mesh]]:
    """Reads (name, mesh) of everything in a file, turned to z up. Points and Gaussians come as meshes without faces.

    Raises:
        UserError: the file is missing, unreadable, of an unknown kind, or empty.
    """
    path = user_path(path)
    file_format = format_to_read(path)
    if not path.exists():
        raise UserError(f"there is no file {path}. Check the path.")
    require_file(path, f"the file {path}")
    assert file_format.read is not None
    try:
        found = checked(list(file_format.read(path)), path)
    except UserError:
        raise
    except Exception as error:  # readers raise exceptions of every kind on a damaged file
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise UserError(f"{path} cannot be read: {reason}. Write it again.") from None
    found = [(name, mesh) for name, mesh in found if len(mesh.vertices)]
    if not found:
        raise UserError(f"{path} holds nothing that can be shown.")
    return found


def read_up(path: str | Path) -> np.ndarray | None:
    """Reads the direction of up `[3]` in the meshes of `read_model`; None where they are upright or it is unknown.

    Our scenes store it, because they are in the frame of the photo's camera.

    Raises:
        UserError: a file of an unknown kind, or that is missing.
    """
    path = user_path(path)
    reader = format_to_read(path).read_up
    return None if reader is None else reader(require_file(path, f"the file {path}").read_bytes())
