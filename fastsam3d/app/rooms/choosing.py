"""Rooms that a visitor may ask about, and questions to begin with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastsam3d.errors import UserError
from fastsam3d.mllm.scenes.files import bundled_room, read_room
from fastsam3d.mllm.scenes.questions import make_questions
from fastsam3d.mllm.scenes.rooms import IDENTIFIERS, Room, make_room

BUNDLED, SEED, FILE = SOURCES = ("Bundled room", "From a seed", "My file")
OBJECTS = 60
"""Number of objects of a room from a seed, if the visitor gives none."""
LARGEST_SEED = 2**31 - 1
EXAMPLES = (
    "the white lamp",
    "the rug next to the basket",
    "the lamp left of the television",
    "find all yellow pillows",
    "how many green plants do you see",
    "what colour is the basket",
    "describe <OBJ014>",
    "i stand at the bin and face north what colour is the cabinet in front of me",
)
"""Questions about the bundled room, one of each kind that is easy to check in its picture."""


def chosen_room(source: Any, seed: Any, objects: Any, uploaded: Room | None) -> Room:
    """Makes the room of these choices.

    Args:
        source: one of `SOURCES`.
        seed, objects: seed and number of objects of a random room.
        uploaded: the visitor's own room; None if there is none yet.

    Raises:
        UserError: nothing was uploaded, or the values are not possible.
    """
    if source == FILE:
        if uploaded is None:
            raise UserError("Choose a room file first.")
        return uploaded
    if source != SEED:
        return read_room(bundled_room())
    try:
        seed, objects = int(seed), int(objects)
    except (TypeError, ValueError, OverflowError):
        raise UserError("The seed and the number of objects must be whole numbers.") from None
    if not 0 <= seed <= LARGEST_SEED or not 1 <= objects <= IDENTIFIERS:
        raise UserError(f"The seed must be from 0 to {LARGEST_SEED}, and the objects from 1 to {IDENTIFIERS}.")
    return make_room(seed, objects)


def read_uploaded_room(path: Path) -> Room:
    """Reads the room of an uploaded file.

    Raises:
        UserError: the file holds no room. The message names the file without its folder.
    """
    try:
        return read_room(path)
    except UserError as error:
        raise UserError(str(error).replace(str(path), path.name)) from None


def example_questions(source: Any, room: Room) -> list[str]:
    """Returns questions about a room, of different kinds."""
    if source == BUNDLED:
        return list(EXAMPLES)
    return [question.text for question in make_questions(room, len(EXAMPLES), 0)]
