"""Objects that a text names, as `<OBJ000>`, `<OBJ001>` and so on."""

from __future__ import annotations

import re
from collections.abc import Callable

OBJECT_ID = re.compile(r"<OBJ([0-9]{3})>")


def object_token(number: int) -> str:
    """The name of an object in a text, such as `<OBJ007>`."""
    return f"<OBJ{number:03d}>"


def named_objects(text: str, objects: int) -> list[int]:
    """Numbers of the objects that a text names, in order, with repetitions.

    Args:
        text: that may name objects.
        objects: number of objects in the scene. Numbers from this one on are ignored.
    """
    return [number for number in map(int, OBJECT_ID.findall(text)) if number < objects]


def rename_objects(text: str, new_number: Callable[[int], int | None]) -> str:
    """Replaces the numbers of objects in a text. A name is removed if `new_number` gives None for its number."""

    def new_name(match: re.Match[str]) -> str:
        number = new_number(int(match[1]))
        return "" if number is None else object_token(number)

    return OBJECT_ID.sub(new_name, text)
