"""Turns masks as their picture is turned: orientation tags of photos and of masks."""

from __future__ import annotations

import numpy as np

from fastsam3d.errors import UserError
from fastsam3d.jobs.pictures import Picture, turned


def upright(values: np.ndarray, orientation: int, picture: Picture, what: str) -> tuple[np.ndarray, list[str]]:
    """Turns a mask as its picture was turned.

    A mask with an orientation tag is turned by this tag, as viewers do. A mask without a tag may fit only if it is
    turned as the picture was turned. Then it was made of the unturned pixels of the picture's file, and is turned, too.

    Args:
        values: `[H, W]` as stored in the file.
        orientation: the mask's own tag, see `orientation_of`.
        what: name of the mask in the sentences.

    Returns:
        (the values, sentences about what was done).
    """
    own = turned(values, orientation)
    if orientation != 1:
        if own.shape == picture.size:
            told = f"{what} is turned by its own orientation tag ({orientation})"
            return own, [] if orientation == picture.orientation else [f"{told}, as viewers show it."]
        if values.shape == picture.size:
            return values, [f"the orientation tag ({orientation}) of {what} is ignored: it fits only as it lies there."]
        return own, []
    if picture.orientation != 1:
        as_picture = turned(values, picture.orientation)
        if values.shape != picture.size and as_picture.shape == picture.size:
            return as_picture, [f"{what} is turned as the picture is by its orientation tag ({picture.orientation})."]
        if values.shape == as_picture.shape == picture.size:
            return values, [
                f"the picture is turned by its orientation tag ({picture.orientation}), {what} has none and is used as "
                "it is: if it was made of the picture's unturned pixels, turn it likewise."
            ]
    return values, []


def refuse_size(shape: tuple[int, ...], picture: Picture, what: str) -> None:
    """Refuses a mask that has another size than its picture.

    Raises:
        UserError: the sizes differ.
    """
    if shape == picture.size:
        return
    (height, width), (rows, columns) = picture.size, shape
    way_out = "make it from the same picture, at its size."
    if (columns, rows) == (height, width):
        way_out = "it lies on its side. Turn it as the picture is shown; do not resize it."
    elif abs(columns * height - rows * width) <= max(columns, rows, height, width):
        way_out = "resize the mask to the picture (nearest neighbour)."
    raise UserError(f"{what} is {columns} x {rows} pixels, the picture {width} x {height}: {way_out}")
