"""Classes, colours, sizes and directions: their numbers and their words."""

from __future__ import annotations

from typing import NamedTuple


class ObjectClass(NamedTuple):
    """A kind of object.

    Attributes:
        name, plural: the word and its plural.
        extents: width, depth and height of a medium object, in metres.
        bottom: height of the lower side above the floor, in metres.
    """

    name: str
    plural: str
    extents: tuple[float, float, float]
    bottom: float = 0.0


CLASSES = (
    ObjectClass("chair", "chairs", (0.5, 0.5, 0.9)),
    ObjectClass("table", "tables", (1.2, 0.8, 0.75)),
    ObjectClass("sofa", "sofas", (1.8, 0.9, 0.8)),
    ObjectClass("bed", "beds", (1.6, 2.0, 0.6)),
    ObjectClass("desk", "desks", (1.4, 0.7, 0.75)),
    ObjectClass("cabinet", "cabinets", (0.9, 0.5, 1.2)),
    ObjectClass("bookcase", "bookcases", (0.9, 0.35, 1.8)),
    ObjectClass("stool", "stools", (0.4, 0.4, 0.5)),
    ObjectClass("bench", "benches", (1.2, 0.4, 0.45)),
    ObjectClass("lamp", "lamps", (0.35, 0.35, 1.5)),
    ObjectClass("plant", "plants", (0.45, 0.45, 0.9)),
    ObjectClass("vase", "vases", (0.25, 0.25, 0.4)),
    ObjectClass("basket", "baskets", (0.4, 0.4, 0.4)),
    ObjectClass("box", "boxes", (0.5, 0.4, 0.4)),
    ObjectClass("bin", "bins", (0.35, 0.35, 0.5)),
    ObjectClass("rug", "rugs", (1.8, 1.2, 0.02)),
    ObjectClass("pillow", "pillows", (0.45, 0.45, 0.15), 0.45),
    ObjectClass("mirror", "mirrors", (0.7, 0.08, 1.0), 0.8),
    ObjectClass("picture", "pictures", (0.8, 0.05, 0.6), 1.3),
    ObjectClass("curtain", "curtains", (1.2, 0.1, 2.0), 0.2),
    ObjectClass("television", "televisions", (1.1, 0.15, 0.65), 0.8),
    ObjectClass("monitor", "monitors", (0.55, 0.2, 0.4), 0.75),
    ObjectClass("backpack", "backpacks", (0.35, 0.25, 0.45)),
    ObjectClass("piano", "pianos", (1.5, 0.6, 1.1)),
)

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (205, 60, 55),
    "orange": (235, 140, 50),
    "yellow": (240, 205, 70),
    "green": (85, 160, 85),
    "blue": (65, 115, 200),
    "purple": (145, 95, 180),
    "white": (238, 236, 230),
    "black": (55, 55, 60),
}
"""Names of the colours, with sRGB values for pictures."""

SIZES: dict[str, float] = {"small": 0.75, "medium": 1.0, "large": 1.35}
"""Names of the sizes, with the factors of the extents."""

DIRECTIONS: dict[str, tuple[int, int]] = {"left": (-1, 0), "right": (1, 0), "front": (0, -1), "behind": (0, 1)}
"""Directions (x, y) of "left of" and the others, for a viewer in the south. An object in front is nearer to them."""

FACINGS: dict[str, int] = {"north": 0, "east": 1, "south": 2, "west": 3}
"""Quarter turns clockwise from north."""

COLOUR_NAMES, SIZE_NAMES = tuple(COLOURS), tuple(SIZES)
DIRECTION_NAMES, FACING_NAMES = tuple(DIRECTIONS), tuple(FACINGS)
