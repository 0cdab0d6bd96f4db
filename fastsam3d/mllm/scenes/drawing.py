"""Draws a room from above.

Objects that stayed are bright, and objects that left are pale. The answer has a frame, and a glow shows the scores. The
plan is drawn at twice its size and then made smaller, for smooth edges. Lengths are in pixels of the result.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from fastsam3d.mllm.scenes.labels import Label, place_labels
from fastsam3d.mllm.scenes.rooms import Room
from fastsam3d.mllm.scenes.vocabulary import CLASSES, COLOUR_NAMES, COLOURS

WIDTH, TALLEST = 1100, 900
"""Width of the picture, and largest height of the plan in it."""
MARGIN, FINE = 24, 2  # FINE: how much larger it is drawn
PAPER, FLOOR, WALL, INK, SOFT = (255, 255, 255), (216, 218, 222), (90, 94, 102), (25, 28, 34), (112, 118, 128)
EDGE, FRAME = (178, 180, 184), (214, 0, 110)
GLOW = ((255, 214, 90), (245, 130, 30), (200, 30, 30))
"""Colours of low, middle and high scores."""
PALE = 0.2  # of the colour of an object that left; the rest is floor
REACH, FAINTEST = 13.0, 0.05  # of the glow beyond the object, and the lowest score that glows
FLAT = 0.1  # metres of height up to which an object lies beneath the others


@dataclass(frozen=True)
class Drawing:
    """What is drawn beside the objects of a room.

    Attributes:
        title: text above the plan, for instance the question.
        lines: texts below the title: pairs of a short name and a text.
        kept: (N,) bool: objects that stayed; None: all objects are bright.
        heat: (N,) 0..1: scores of the objects, drawn as a glow; None: no glow.
        framed: indices of the objects that the answer names.
    """

    title: str = ""
    lines: Sequence[tuple[str, str]] = ()
    kept: np.ndarray | None = None
    heat: np.ndarray | None = None
    framed: Collection[int] = field(default_factory=tuple)


def draw_room(room: Room, drawing: Drawing | None = None) -> Image.Image:
    """Draws a room from above as an RGB picture; the back wall is at the top."""
    drawing = Drawing() if drawing is None else drawing
    head, plan, foot = _head(drawing), _Plan(room, drawing).image, _legend(drawing)
    parts = [part for part in (head, plan, foot) if part is not None]
    picture = Image.new("RGB", (WIDTH, sum(part.height for part in parts) + MARGIN), PAPER)
    top = MARGIN // 2
    for part in parts:
        picture.paste(part, (0, top))
        top += part.height
    return picture


class _Plan:
    """The floor with its objects.

    Args:
        room: with N objects.
        drawing: what is said about them.
    """

    def __init__(self, room: Room, drawing: Drawing) -> None:
        self._room, self._drawing = room, drawing
        self._scale = min((WIDTH - 2 * MARGIN) / room.width, TALLEST / room.depth)
        self._size = np.array([room.width, room.depth]) * self._scale
        self._left = (WIDTH - self._size[0]) / 2
        self._kept = np.ones(len(room), bool) if drawing.kept is None else np.asarray(drawing.kept, bool)
        self._corners = self._rectangles()
        height = round(self._size[1]) + MARGIN
        large = Image.new("RGB", (WIDTH * FINE, height * FINE), PAPER)
        floor = [(self._left, MARGIN / 2), (self._left + self._size[0], MARGIN / 2 + self._size[1])]
        _rectangle(ImageDraw.Draw(large), np.array(floor), FLOOR, WALL, 3)
        self._draw_objects(large)
        self.image = large.resize((WIDTH, height), Image.Resampling.LANCZOS)

    def _rectangles(self) -> np.ndarray:
        """(N, 2, 2) upper left and lower right corners; thin objects such as pictures get a few pixels more."""
        boxes = self._room.boxes.astype(np.float64)
        centres = boxes[:, :2] * [1, -1] * self._scale + self._size / 2 + [self._left, MARGIN / 2]
        half = np.maximum(boxes[:, 3:5] * self._scale, 9) / 2
        return np.stack([centres - half, centres + half], axis=1)

    def _draw_objects(self, image: Image.Image) -> None:
        room, extents = self._room, self._corners[:, 1] - self._corners[:, 0]
        # Rugs first, and the small objects last, so that all are seen.
        order = np.lexsort([-extents.prod(1), room.boxes[:, 5] > FLAT])
        texts = [str(number) for number in room.identifiers]
        labels = place_labels(self._corners, order, texts, [CLASSES[kind].name for kind in room.classes], _width)
        draw = ImageDraw.Draw(image)
        for index in order:
            self._add_glow(image, index)
            _rectangle(draw, self._corners[index], self._fill(index), *((INK, 1.6) if self._kept[index] else (EDGE, 1)))
            if not labels[index].crowded:
                self._draw_label(draw, labels[index], index)
        for index in self._drawing.framed:
            _rectangle(draw, self._corners[index] + [[-3], [3]], None, PAPER, 3)
            _rectangle(draw, self._corners[index] + [[-6], [6]], None, FRAME, 4)
        for index in order:
            if labels[index].crowded:
                self._draw_label(draw, labels[index], index)

    def _fill(self, index: int) -> tuple[int, int, int]:
        colour = COLOURS[COLOUR_NAMES[self._room.colours[index]]]
        return colour if self._kept[index] else _pale(colour)

    def _add_glow(self, image: Image.Image, index: int) -> None:
        if self._drawing.heat is None or not self._drawing.heat[index] >= FAINTEST:
            return
        heat = float(np.clip(self._drawing.heat[index], 0, 1))
        reach = REACH * (0.45 + 0.55 * heat)
        around = np.round((self._corners[index] + [[-2 * reach], [2 * reach]]) * FINE).astype(int)
        mask = Image.new("L", tuple(around[1] - around[0]))
        inside = (self._corners[index] + [[-reach], [reach]]) * FINE - around[0]
        ImageDraw.Draw(mask).rounded_rectangle([*inside.ravel()], reach * FINE, round(90 + 165 * heat))
        image.paste(_glow_colour(heat), tuple(around[0]), mask.filter(ImageFilter.GaussianBlur(2.5 * FINE)))

    def _draw_label(self, draw: ImageDraw.ImageDraw, label: Label, index: int) -> None:
        fill = self._fill(index)
        bright = np.array(fill) @ [0.299, 0.587, 0.114] > 140
        ink = (INK if bright else PAPER) if self._kept[index] else SOFT
        lines = [(label.text, label.size), *([(label.name, label.size * 0.72)] if label.name else [])]
        top = label.centre[1] - sum(size for _, size in lines) / 2
        for text, size in lines:
            place = (label.centre[0] * FINE, (top + size / 2) * FINE)
            around = 2 * FINE if label.crowded else 0
            draw.text(place, text, ink, _font(size * FINE), "mm", stroke_width=around, stroke_fill=fill)
            top += size


def _pale(colour: Sequence[int]) -> tuple[int, int, int]:
    """The colour of an object that left."""
    return _rgb(PALE * np.array(colour) + (1 - PALE) * np.array(FLOOR))


def _glow_colour(heat: float) -> tuple[int, int, int]:
    """The colour of a score, 0..1."""
    stops = np.array(GLOW, float)
    return _rgb(np.array([np.interp(heat, [0, 0.5, 1], stops[:, channel]) for channel in range(3)]))


def _head(drawing: Drawing) -> Image.Image | None:
    """Title and lines."""
    if not drawing.title and not drawing.lines:
        return None
    titles = _wrapped(drawing.title, 25, WIDTH - 2 * MARGIN)
    indent = max((_width(name, 18) for name, _ in drawing.lines), default=0) + 16
    lines = [
        (name if first else "", part)
        for name, text in drawing.lines
        for first, part in zip([True, *[False] * 99], _wrapped(text, 18, WIDTH - 2 * MARGIN - indent), strict=False)
    ]
    image = Image.new("RGB", (WIDTH, 33 * len(titles) + 26 * len(lines) + 10), PAPER)
    draw = ImageDraw.Draw(image)
    for row, text in enumerate(titles):
        draw.text((MARGIN, 33 * row + 16), text, INK, _font(25), "lm")
    for row, (name, text) in enumerate(lines):
        y = 33 * len(titles) + 26 * row + 15
        draw.text((MARGIN, y), name, SOFT, _font(18), "lm")
        draw.text((MARGIN + indent, y), text, INK, _font(18), "lm")
    return image


def _legend(drawing: Drawing) -> Image.Image | None:
    """What the signs mean; only those that are in the picture."""
    sample = COLOURS["blue"]
    entries: list[tuple[str, str]] = []
    if drawing.kept is not None:
        entries += [("kept", "stayed"), ("pale", "left out")]
    if drawing.framed:
        entries.append(("frame", "the answer"))
    if drawing.heat is not None:
        entries.append(("heat", "score, low to high"))
    if not entries:
        return None
    large = Image.new("RGB", (WIDTH * FINE, 40 * FINE), PAPER)
    draw, x = ImageDraw.Draw(large), float(MARGIN)
    for kind, text in entries:
        swatch = np.array([[x, 12], [x + (70 if kind == "heat" else 30), 30]])
        if kind == "heat":
            for step in range(70 * FINE):
                colour = _glow_colour(step / (70 * FINE - 1))
                draw.line([(x * FINE + step, 12 * FINE), (x * FINE + step, 30 * FINE)], colour)
        elif kind == "frame":
            _rectangle(draw, swatch, None, FRAME, 4)
        else:
            _rectangle(draw, swatch, *((sample, INK, 1.6) if kind == "kept" else (_pale(sample), EDGE, 1)))
        x = swatch[1, 0] + 9
        draw.text((x * FINE, 21 * FINE), text, INK, _font(17 * FINE), "lm")
        x += _width(text, 17) + 34
    return large.resize((WIDTH, 40), Image.Resampling.LANCZOS)


def _wrapped(text: str, size: float, width: float) -> list[str]:
    """Lines of a text that are no wider than so many pixels."""
    lines: list[str] = []
    for word in text.split():
        if lines and _width(f"{lines[-1]} {word}", size) <= width:
            lines[-1] = f"{lines[-1]} {word}"
        else:
            lines.append(word)
    return lines


def _rectangle(draw: ImageDraw.ImageDraw, corners: np.ndarray, fill: Any, outline: Any, width: float) -> None:
    draw.rectangle(_fine(corners), fill, outline, max(round(width * FINE), 1))


def _fine(corners: np.ndarray) -> list[float]:
    return [round(float(value) * FINE) for value in corners.ravel()]


def _rgb(colour: Any) -> tuple[int, int, int]:
    red, green, blue = (int(np.clip(round(float(value)), 0, 255)) for value in colour)
    return red, green, blue


def _width(text: str, size: float) -> float:
    """Pixels that a text is wide."""
    return float(_font(size).getlength(text))


def _font(size: float) -> Any:
    try:
        return ImageFont.load_default(max(round(size), 6))
    except TypeError:  # Pillow 10.0 has one size only
        return ImageFont.load_default()
