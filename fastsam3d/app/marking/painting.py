"""Marks of a picture with a brush: strokes over masks of clicks and boxes, and names of the objects."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from fastsam3d.app.marking.marks import MarkedObject, Marking
from fastsam3d.errors import UserError

MAXIMUM_POINTS, MAXIMUM_STROKES = 2000, 300
"""Largest numbers of points of one stroke, and of strokes of one object."""
LARGEST_RADIUS = 0.25
"""Largest radius of the brush, in widths of the picture."""
LONGEST_NAME = 40


class PaintedMarking(Marking):
    """Marked objects that can be painted on and that have names.

    The history of an object also holds ("stroke", points, radius, inside), in pixels. A stroke has priority over
    earlier and later clicks and boxes, and over earlier strokes. So painted pixels stay as they were painted.
    """

    _given_names: Sequence[tuple[MarkedObject, str]] = ()
    """Pairs (object, name). An index would change when an earlier object is removed, and equal objects may exist."""
    _cut: tuple[MarkedObject, list[tuple[Any, ...]], np.ndarray | None] | None = None
    """Of the object that was last changed: its marks without the strokes, and the mask that is made of them."""

    @property
    def names(self) -> list[str]:
        """Returns the names of the objects that have a mask, in order, as `Marking.masks` has them."""
        return [self.name(index) for index, item in enumerate(self.objects) if item.mask is not None]

    def name(self, index: int) -> str:
        """Returns the name of an object."""
        item = self.objects[index]
        return next((name for other, name in self._given_names if other is item), f"Object {index + 1}")

    def apply(self, action: Mapping[str, Any]) -> None:
        """Carries out an action of the page; see `Marking.apply`.

        Further actions: `{"action": "stroke", "points", "radius", "inside"}` with points as [x, y] in fractions of the
        picture and the radius in fractions of its width; `{"action": "rename", "index", "name"}`.

        Raises:
            UserError: the action is not possible or not known.
        """
        kind = action.get("action")
        if kind == "stroke":
            self._stroke(action)
        elif kind == "rename":
            self._rename(action)
        else:
            super().apply(action)

    def view(self) -> dict[str, Any]:
        """Returns the values that the page draws, see `Marking.view`."""
        shown = super().view()
        for index, item in enumerate(shown["objects"]):
            item["name"] = self.name(index)
        return shown

    def _rename(self, action: Mapping[str, Any]) -> None:
        index, text = self._index(action), action.get("name")
        if not isinstance(text, str):
            raise UserError("A name must be text.")
        name = " ".join(re.sub(r"[^\w .-]", " ", text).split())[:LONGEST_NAME].strip(". ")
        item, present = self.objects[index], {id(each) for each in self.objects}
        kept = [pair for pair in self._given_names if id(pair[0]) in present and pair[0] is not item]
        self._given_names = [*kept, (item, name)] if name else kept

    def _stroke(self, action: Mapping[str, Any]) -> None:
        item = self.objects[self.active]
        if sum(entry[0] == "stroke" for entry in item.history) >= MAXIMUM_STROKES:
            raise UserError("There are too many strokes for one object. Save the mask, and add it as a mask file.")
        height, width = self.pixels.shape[:2]
        points, radius = action.get("points"), _number(action.get("radius"))
        if not isinstance(points, list) or not 1 <= len(points) <= MAXIMUM_POINTS:
            raise UserError(f"A stroke has from 1 to {MAXIMUM_POINTS} points.")
        if not 0 < radius <= LARGEST_RADIUS:
            raise UserError("A brush of that size is not possible.")
        inside = action.get("inside") is not False
        if not inside and not item.history:
            raise UserError("Mark the object first; then erase what does not belong to it.")
        place = tuple(_point(point, width, height) for point in points)
        item.history.append(("stroke", place, max(0.5, radius * width), inside))
        self._update_or_undo()

    def _update(self) -> None:
        item = self.objects[self.active]
        marks = [entry for entry in item.history if entry[0] != "stroke"]
        known = self._cut
        # Masks of clicks and boxes are made again only if these have changed, because a stroke must be fast.
        if known is None or known[0] is not item or not _same(known[1], marks):
            super()._update()
            known = self._cut = (item, marks, item.mask)
        mask = known[2]
        for kind, *entry in item.history:
            if kind == "stroke":
                points, radius, inside = entry
                mask = np.zeros(self.pixels.shape[:2], dtype=bool) if mask is None else mask
                cover = painted(mask.shape, points, radius)
                mask = mask | cover if inside else mask & ~cover
        item.mask = mask if mask is not None and mask.any() else None


def painted(shape: tuple[int, ...], points: tuple[tuple[float, float], ...], radius: float) -> np.ndarray:
    """Returns the pixels of a stroke: a line of width `2 * radius` with round ends, exact to about half a pixel.

    Args:
        shape: (height, width).
        points: (x, y) in pixels.

    Returns:
        bool `[H, W]`.
    """
    height, width = shape
    layer = Image.new("1", (width, height))
    draw = ImageDraw.Draw(layer)
    # The centre of pixel k is at k + 1/2. Pillow counts centres, and draws an ellipse a little too large.
    rim = max(0.0, radius - 0.5)
    middles = [(x - 0.5, y - 0.5) for x, y in points]
    if len(middles) > 1:
        draw.line(middles, fill=1, width=max(1, round(2 * radius)))
    for x, y in middles:
        draw.ellipse((x - rim, y - rim, x + rim, y + rim), fill=1)
    return np.array(layer)


def _same(left: list[tuple[Any, ...]], right: list[tuple[Any, ...]]) -> bool:
    return len(left) == len(right) and all(a is b for a, b in zip(left, right, strict=True))


def _point(point: Any, width: int, height: int) -> tuple[float, float]:
    if not isinstance(point, list) or len(point) != 2:
        raise UserError("That spot is not in the picture.")
    return _number(point[0]) * width, _number(point[1]) * height


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise UserError("That spot is not in the picture.")
    return min(max(float(value), -1.0), 2.0)
