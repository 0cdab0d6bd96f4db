"""Boxes and points that a person gives instead of a mask, as text or numbers, and their check against a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastsam3d.errors import UserError

Box = tuple[float, float, float, float]
Point = tuple[float, float, bool]
SMALLEST_BOX = 4.0
"""Smallest length of the shorter side of a box, in pixels."""
BOX_HELP = "four numbers x0,y0,x1,y1: upper left and lower right corner, in pixels from the picture's upper left"
POINT_HELP = "two numbers x,y in pixels from the picture's upper left; -x,y is a point on the background"


@dataclass(frozen=True)
class Marks:
    """Boxes and points, in pixels of the picture as it is shown: x to the right, y down.

    Attributes:
        boxes: (left, top, right, bottom) of each box.
        points: (x, y, whether the object is there) of each point.
        propose: find the objects without marks.
    """

    boxes: tuple[Box, ...] = ()
    points: tuple[Point, ...] = ()
    propose: bool = False

    @property
    def given(self) -> bool:
        """Tells whether anything was marked."""
        return bool(self.boxes or self.points or self.propose)

    def settings(self) -> dict[str, Any]:
        """Returns the marks as keys of the configuration."""
        boxes = [",".join(f"{value:g}" for value in box) for box in self.boxes]
        return {"box": boxes, "point": [_shown(point) for point in self.points], "all": self.propose}


def marks_of(values: Mapping[str, Any]) -> Marks:
    """Reads the keys `box`, `point` and `all` of a configuration.

    Args:
        values: `box` and `point` are None, text with `;` between several, or a list of texts or of numbers.

    Raises:
        UserError: a value is empty or cannot be read, or the values cannot be combined.
    """
    if not isinstance(values["all"], bool):
        raise UserError(f"all={values['all']} is not possible: give true or false.")
    for key, what in (("box", BOX_HELP), ("point", POINT_HELP)):
        texts = values[key] if _is_list(values[key]) else [values[key]]
        # For instance from a shell variable that is not set. Without the mark another mask would be used.
        if any(isinstance(text, str) and not _several(text) for text in texts):
            raise UserError(f"--{key} is empty. Give {what}, or leave it out.")
    boxes = tuple(_box(value) for value in _several(values["box"]))
    points = tuple(_point(value) for value in _several(values["point"]))
    if values["all"] and (boxes or points):
        raise UserError("--all finds the objects by itself. Leave out --box and --point, or leave out --all.")
    if points and not boxes and not any(inside for _, _, inside in points):
        raise UserError("every --point is on the background (-x,y). Add one on the object: --point x,y.")
    return Marks(boxes, points, values["all"])


def marks_within(marks: Marks, width: int, height: int) -> tuple[Marks, list[str]]:
    """Returns the marks inside a picture, and sentences about boxes that were cut off at its rim.

    Raises:
        UserError: a box or a point is outside of the picture.
    """
    size = f"the picture, which is {width} x {height} pixels"
    boxes, told = [], []
    for box in marks.boxes:
        left, top, right, bottom = box
        inner = max(left, 0.0), max(top, 0.0), min(right, float(width)), min(bottom, float(height))
        text = ",".join(f"{value:g}" for value in box)
        if inner[2] - inner[0] < SMALLEST_BOX or inner[3] - inner[1] < SMALLEST_BOX:
            raise UserError(f"--box {text} lies outside of {size}. Give {BOX_HELP}.")
        if inner != box:
            told.append(f"--box {text} is larger than {size}: it ends at the rim.")
        boxes.append(inner)
    for point in marks.points:
        x, y, _ = point
        if not (0 <= x <= width and 0 <= y <= height):
            raise UserError(f"--point {_shown(point)} lies outside of {size}. Give {POINT_HELP}.")
    return Marks(tuple(boxes), marks.points, marks.propose), told


def prompts_of(marks: Marks, several: bool) -> list[tuple[Box | None, tuple[Point, ...]]]:
    """Returns the box and the points of each object.

    For one object, all marks belong to it. For several, each box is an object, with the points inside it. A point on an
    object outside of all boxes is another object. Points on other objects count as background, to separate the objects.

    Args:
        several: whether more than one object is wanted.

    Raises:
        UserError: several boxes for one object.
    """
    if not several:
        if len(marks.boxes) > 1:
            raise UserError("--box was given more than once, for one object. Use infer_scene for several objects.")
        return [(marks.boxes[0] if marks.boxes else None, marks.points)]
    background = tuple(point for point in marks.points if not point[2])
    prompts: list[tuple[Box | None, tuple[Point, ...]]] = [
        (box, tuple(point for point in marks.points if _inside(point, box))) for box in marks.boxes
    ]
    alone = [p for p in marks.points if p[2] and not any(_inside(p, box) for box in marks.boxes)]
    for own in alone:
        others = tuple((x, y, False) for x, y, _ in alone if (x, y) != own[:2])
        prompts.append((None, (own, *others, *background)))
    return prompts


def _several(value: Any) -> list[Any]:
    if value is None:
        return []
    if isinstance(value, str):
        return [part.strip() for part in value.split(";") if part.strip()]
    if not isinstance(value, (list, tuple)):
        return [value]
    if value and all(isinstance(part, (int, float)) and not isinstance(part, bool) for part in value):
        return [list(value)]
    return [piece for part in value for piece in (_several(part) if isinstance(part, str) else [part])]


def _numbers(value: Any, count: int, flag: str, what: str) -> list[float]:
    parts = value.split(",") if isinstance(value, str) else value
    try:
        numbers = [float(part) for part in parts]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise UserError(f"{flag} {value} cannot be read. Give {what}.")
    return numbers


def _box(value: Any) -> Box:
    left, top, right, bottom = _numbers(value, 4, "--box", BOX_HELP)
    given = f"{left:g},{top:g},{right:g},{bottom:g}"
    if right < left or bottom < top:
        ordered = [min(left, right), min(top, bottom), max(left, right), max(top, bottom)]
        meant = ",".join(f"{number:g}" for number in ordered)
        raise UserError(
            f"--box {given}: the second corner is not to the lower right of the first. Did you mean --box {meant}?"
        )
    if right - left < SMALLEST_BOX or bottom - top < SMALLEST_BOX:
        raise UserError(f"--box {given} is empty or too small: draw it around the whole object. Give {BOX_HELP}.")
    return left, top, right, bottom


def _point(value: Any) -> Point:
    # As text, so that -0,50 is on the background, too.
    text = value.strip() if isinstance(value, str) else ",".join(map(str, value)) if _is_list(value) else str(value)
    x, y = _numbers(text.removeprefix("-"), 2, "--point", POINT_HELP)
    return x, y, not text.startswith("-")


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple))


def _shown(point: Point) -> str:
    return f"{'' if point[2] else '-'}{point[0]:g},{point[1]:g}"


def _inside(point: Point, box: Box) -> bool:
    return box[0] <= point[0] <= box[2] and box[1] <= point[1] <= box[3]
