"""Makes masks of boxes and points, or proposes them without marks, by the markers that the page uses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from fastsam3d.errors import UserError
from fastsam3d.jobs.masks import Mask, refuse_specks
from fastsam3d.jobs.pictures import Picture
from fastsam3d.jobs.reading.marks import Box, Marks, Point, marks_within, prompts_of
from fastsam3d.marking.proposals import propose
from fastsam3d.marking.segmentation import Prompt

if TYPE_CHECKING:
    from fastsam3d.marking.learned import Marker

LABEL = "marked"
"""Label of the mask of one object."""
FULL, SPARSE = 0.98, 0.05
"""Shares of the box: a mask is doubtful from the first on, and up to the second."""
WHOLE, FEW = 0.9, 64
"""A mask is doubtful from this share of the picture on, and up to this number of pixels."""


def marked_mask(marks: Marks, picture: Picture, index: int = 0, load: Callable[[], Marker] | None = None) -> Mask:
    """Makes the mask of one object.

    Args:
        index: number of the proposed object, the largest first; used only if `marks.propose` is set.
        load: returns the marker; by default the network that ships. Not called if `marks.propose` is set.

    Raises:
        UserError: marks are outside of the picture, no object was found, or what the marker needs is missing.
    """
    if marks.propose:
        found = proposed_masks(picture)
        if index >= len(found):
            known = ", ".join(str(number) for number in range(len(found)))
            raise UserError(f"--all found no object {index}: --mask_index can be {known}, the largest first.")
        more = f"--all found {len(found)} objects; this is number {index}. --mask_index takes another, "
        note = [more + "infer_scene --all takes every one."] if len(found) > 1 else []
        return Mask(str(index), picture.path, found[index].pixels, notes=tuple(note), marks=found[index].marks)
    within, told = marks_within(marks, picture.size[1], picture.size[0])
    ((box, points),) = prompts_of(within, several=False)
    marker = _marker(load)
    return _made(LABEL, box, points, picture, told, marker)


def marked_masks(marks: Marks, picture: Picture, load: Callable[[], Marker] | None = None) -> list[Mask]:
    """Makes the masks of several objects. `Mask.problem` says why a single mask cannot be used.

    Args:
        load: returns the marker; by default the network that ships. Not called if `marks.propose` is set.

    Raises:
        UserError: marks are outside of the picture, no object was found, or what the marker needs is missing.
    """
    if marks.propose:
        return proposed_masks(picture)
    within, told = marks_within(marks, picture.size[1], picture.size[0])
    marker = _marker(load)
    masks: list[Mask] = []
    for number, (box, points) in enumerate(prompts_of(within, several=True)):
        try:
            masks.append(_made(str(number), box, points, picture, told if not masks else (), marker))
        except UserError as error:
            nothing = np.zeros(picture.size, dtype=bool)
            masks.append(Mask(str(number), picture.path, nothing, str(error), marks=_described(box, points)))
    if all(mask.problem for mask in masks):
        raise UserError(str(masks[0].problem))
    return masks


def proposed_masks(picture: Picture) -> list[Mask]:
    """Finds the objects of a picture without any mark, the largest first.

    Raises:
        UserError: no object is found, or OpenCV is not installed.
    """
    found = propose(picture.pixels)
    if not found:
        raise UserError(
            f"--all found no object in {picture.path}: it finds objects on a plain backdrop, such as a table or "
            "a wall. Mark the object: --box x0,y0,x1,y1 or --point x,y."
        )
    return [Mask(str(n), picture.path, pixels, marks={"proposed": True}) for n, pixels in enumerate(found)]


def _marker(load: Callable[[], Marker] | None) -> Marker:
    from fastsam3d.marking.learned import shipped_marker  # with PyTorch: only where something is marked

    return (load or shipped_marker)()


def _made(
    label: str,
    box: Box | None,
    points: Sequence[Point],
    picture: Picture,
    told: Sequence[str],
    marker: Marker,
) -> Mask:
    pixels = marker.segmenter(picture.pixels, Prompt(tuple(points), box))
    if not pixels.any():
        raise UserError(
            f"no object was found by the marks on {picture.path}. Draw the box around the whole object, with a little "
            "room, or add --point x,y on the object."
        )
    refuse_specks(pixels, picture.path)
    without = (marker.note,) if marker.note else ()
    notes = (*without, *told, *mark_doubts(pixels, box))
    return Mask(label, picture.path, pixels, notes=notes, marks=_described(box, points))


def mark_doubts(pixels: np.ndarray, box: Box | None) -> list[str]:
    """Returns doubts about a mask that was made of marks, for warnings before any work.

    Args:
        pixels: bool `[H, W]`, not all false.
        box: the box that it was made of, in pixels.
    """
    area = int(pixels.sum())
    if box is not None:
        columns, rows = (slice(round(box[i]), round(box[i + 2])) for i in (0, 1))
        inside = pixels[rows, columns]
        share = area / max(1, inside.size)
        text = ",".join(f"{value:g}" for value in box)
        if share >= FULL:
            return [
                f"the mask fills the box {text} entirely, so the object was not told from the background. Draw the box "
                "with a little room around the object, or add --point -x,y on the background."
            ]
        if share <= SPARSE:
            return [
                f"the mask is almost empty: {area} pixels, {share:.1%} of the box {text}. "
                "Add --point x,y on the object."
            ]
    elif area >= WHOLE * pixels.size:
        return [
            f"the mask covers {area / pixels.size:.0%} of the picture, so the object was not told from the background. "
            "Add --point -x,y on the background, or use --box."
        ]
    if area <= FEW:
        return [f"the mask is almost empty: {area} pixels. Add --point x,y on the object, or use --box."]
    return []


def _described(box: Box | None, points: Sequence[Point]) -> dict[str, object]:
    listed = [[x, y, "object" if inside else "background"] for x, y, inside in points]
    return {"box": None if box is None else list(box), "points": listed}
