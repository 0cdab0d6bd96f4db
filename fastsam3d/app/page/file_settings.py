"""The page's choices for a mesh before it is written: faces, texture, watertight."""

from __future__ import annotations

from typing import Any

from fastsam3d.errors import UserError
from fastsam3d.meshes.writing import Preparation

FEWEST, MOST = 100, 1_000_000
"""Smallest and largest number of faces."""
TEXTURES = {"Colours at the vertices": 0, "Texture, 512 texels": 512, "Texture, 1024 texels": 1024}
TEXTURES |= {"Texture, 2048 texels": 2048}
"""Sides of the texture in texels, by their names on the page; 0 bakes no texture."""


def preparation_of(faces: Any, texture: Any, watertight: Any) -> Preparation:
    """Reads the settings of the page.

    Args:
        faces: wanted number of faces, reached approximately; None or 0 keeps all.
        texture: one of the values of `TEXTURES`.

    Raises:
        UserError: a value is not possible, or a package that is needed is not installed.
    """
    try:
        count, side = int(faces or 0), int(texture or 0)
    except (TypeError, ValueError, OverflowError):
        raise UserError("The number of faces must be a whole number.") from None
    if count and not FEWEST <= count <= MOST:
        raise UserError(f"A mesh can have from {FEWEST} to {MOST:,} faces. 0 keeps all.")
    if side not in TEXTURES.values():
        raise UserError("A texture of that size is not offered.")
    preparation = Preparation(count or None, bool(watertight), side or None)
    preparation.check()
    return preparation
