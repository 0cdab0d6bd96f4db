"""Keeps the objects that a visitor has marked in a picture: clicks, boxes, masks, and how the page draws them."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from fastsam3d.errors import UserError
from fastsam3d.marking.segmentation import Prompt, Segmenter, segment

COLORS = ((255, 122, 26), (38, 132, 255), (22, 163, 74), (219, 39, 119), (147, 51, 234), (202, 138, 4))
"""sRGB, one object after the other."""
SHOWN_SIDE = 1280
"""Longest side, in pixels, of the picture in the page."""
MAXIMUM_CLICKS = 60


@dataclass
class MarkedObject:
    """One object: its clicks and boxes, oldest first, and the mask that follows from them.

    `history` holds ("click", x, y, inside), ("box", left, top, right, bottom) in pixels, or ("mask", array).
    """

    history: list[tuple[Any, ...]] = field(default_factory=list)
    mask: np.ndarray | None = None

    @property
    def prompt(self) -> Prompt:
        """Its clicks and its last box."""
        boxes = [entry[1:] for entry in self.history if entry[0] == "box"]
        clicks = tuple(entry[1:] for entry in self.history if entry[0] == "click")
        return Prompt(clicks, boxes[-1] if boxes else None)  # type: ignore[arg-type]

    @property
    def given_mask(self) -> np.ndarray | None:
        """The mask that was uploaded, if the object began with one."""
        return self.history[0][1] if self.history and self.history[0][0] == "mask" else None


class Marking:
    """All marked objects of one picture. The last of them may be empty: it is the one to be marked next.

    Args:
        pixels: uint8 `[H, W, 3]`.
        segmenter: makes masks of prompts.
        limit: of objects.
    """

    def __init__(self, pixels: np.ndarray, segmenter: Segmenter = segment, limit: int = 12) -> None:
        self.pixels = pixels
        self.objects = [MarkedObject()]
        self.active = 0
        self._segmenter = segmenter
        self._limit = limit

    @property
    def masks(self) -> list[np.ndarray]:
        """Masks of the objects that have one, in order."""
        return [item.mask for item in self.objects if item.mask is not None]

    def add_mask(self, mask: np.ndarray) -> None:
        """Adds an object with a ready mask, bool `[H, W]`."""
        if self.objects[self.active].history:
            self._add()
        self.objects[self.active].history.append(("mask", mask))
        self._update()

    def apply(self, action: Mapping[str, Any]) -> None:
        """Carries out an action of the page.

        `{"action": "click", "x", "y", "inside"}`, `{"action": "box", "left", "top", "right", "bottom"}` with
        coordinates in fractions of the picture; `"undo"`, `"clear"`, `"add"`; `"activate"` and `"remove"` with
        `"index"`.

        Raises:
            UserError: it is not possible, or not understood.
        """
        kind = action.get("action")
        if kind == "click":
            self._click(action)
        elif kind == "box":
            self._box(action)
        elif kind == "undo":
            if self.objects[self.active].history:
                self.objects[self.active].history.pop()
                self._update()
        elif kind == "clear":
            self.objects, self.active = [MarkedObject()], 0
        elif kind == "add":
            self._add()
        elif kind == "activate":
            self.active = self._index(action)
        elif kind == "remove":
            del self.objects[self._index(action)]
            self.objects = self.objects or [MarkedObject()]
            self.active = min(self.active, len(self.objects) - 1)
        else:
            raise UserError("That cannot be done with a picture.")

    def view(self) -> dict[str, Any]:
        """Describes what the page draws for each object: colour, marks in fractions of the picture, and state."""
        height, width = self.pixels.shape[:2]
        shown = []
        for index, item in enumerate(self.objects):
            prompt = item.prompt
            box = prompt.box
            shown.append(
                {
                    "name": f"Object {index + 1}",
                    "color": "#{:02x}{:02x}{:02x}".format(*color_of(index)),
                    "active": index == self.active,
                    "marked": item.mask is not None,
                    "undo": bool(item.history),
                    "clicks": [[x / width, y / height, inside] for x, y, inside in prompt.clicks],
                    "box": None if box is None else [v / (width, height)[i % 2] for i, v in enumerate(box)],
                }
            )
        return {"objects": shown, "room": len(self.objects) < self._limit}

    def overlay(self) -> Image.Image | None:
        """The masks as a translucent picture in RGBA, each with an outline; None where there is none."""
        if not self.masks:
            return None
        height, width = self.pixels.shape[:2]
        size = fitted(width, height, SHOWN_SIDE)
        layer = np.zeros((size[1], size[0], 4), dtype=np.uint8)
        for index, item in enumerate(self.objects):
            if item.mask is None:
                continue
            cover = Image.fromarray(item.mask).resize(size, Image.Resampling.NEAREST).convert("L")
            inside = np.asarray(cover) > 0
            rim = np.asarray(cover.filter(ImageFilter.MaxFilter(5))) > 0
            layer[inside] = (*color_of(index), 130 if index == self.active else 85)
            layer[rim & ~inside] = (*color_of(index), 255)
        return Image.fromarray(layer)

    def _click(self, action: Mapping[str, Any]) -> None:
        item = self.objects[self.active]
        if sum(entry[0] == "click" for entry in item.history) >= MAXIMUM_CLICKS:  # the brush has a limit of its own
            raise UserError(f"An object can have {MAXIMUM_CLICKS} clicks. Clear it, and draw a box around it.")
        height, width = self.pixels.shape[:2]
        x, y = _fraction(action, "x") * width, _fraction(action, "y") * height
        inside = action.get("inside") is not False
        if not inside and not item.history:
            raise UserError("Click on the object first; then take away what does not belong to it.")
        item.history.append(("click", x, y, inside))
        self._update_or_undo()

    def _box(self, action: Mapping[str, Any]) -> None:
        height, width = self.pixels.shape[:2]
        left, right = sorted(_fraction(action, key) * width for key in ("left", "right"))
        top, bottom = sorted(_fraction(action, key) * height for key in ("top", "bottom"))
        self.objects[self.active].history.append(("box", left, top, right, bottom))
        self._update_or_undo()

    def _add(self) -> None:
        if self.objects[-1].history:
            if len(self.objects) >= self._limit:
                raise UserError(f"Up to {self._limit} objects can be marked at a time.")
            self.objects.append(MarkedObject())
        self.active = len(self.objects) - 1

    def _update_or_undo(self) -> None:
        try:
            self._update()
        except UserError:
            self.objects[self.active].history.pop()
            raise

    def _update(self) -> None:
        item = self.objects[self.active]
        mask = item.given_mask
        if not item.prompt.is_empty:
            marked = self._segmenter(self.pixels, item.prompt)
            mask = marked if mask is None else mask | marked
        elif mask is not None and item.prompt.clicks:
            # Clicks beside an uploaded mask take away what a click on that spot would select.
            for x, y, _ in item.prompt.clicks:
                mask = mask & ~self._segmenter(self.pixels, Prompt(((x, y, True),)))
        item.mask = mask if mask is not None and mask.any() else None

    def _index(self, action: Mapping[str, Any]) -> int:
        index = action.get("index")
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(self.objects):
            raise UserError("There is no such object.")
        return index


def color_of(index: int) -> tuple[int, int, int]:
    """Returns the sRGB colour of an object by its number."""
    return COLORS[index % len(COLORS)]


def fitted(width: int, height: int, side: int) -> tuple[int, int]:
    """(width, height) with the longest side at most `side`."""
    factor = min(1.0, side / max(width, height))
    return max(1, round(width * factor)), max(1, round(height * factor))


def data_url(image: Image.Image, side: int = SHOWN_SIDE) -> str:
    """The picture inside an address, so that it needs no file: JPEG, or PNG where it is transparent."""
    image = image.resize(fitted(*image.size, side), Image.Resampling.LANCZOS) if max(image.size) > side else image
    buffer = io.BytesIO()
    kind = "png" if image.mode == "RGBA" else "jpeg"
    if kind == "png":
        image.save(buffer, "PNG", compress_level=4)
    else:
        image.convert("RGB").save(buffer, "JPEG", quality=88)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _fraction(action: Mapping[str, Any], key: str) -> float:
    value = action.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise UserError("That spot is not in the picture.")
    return min(max(float(value), 0.0), 1.0 - 1e-6)
