"""Rooms as JSON files that people can write by hand.

    {"width": 6, "depth": 5, "objects": [{"class": "chair", "colour": "red", "place": [-1.5, 0.8]}, ...]}

All lengths are in metres. Seen from above, the middle of the floor is (0, 0), x goes to the right, y goes away from
the viewer, and z goes up. An object needs `class` and `colour`. It may have: `size` (small, medium or large); `place`,
the x and y of its centre on the floor, or `box`, its centre x, y, z and its full extents x, y, z; and `id`, the number
in its identifier. Without `box` and `place` it gets a free place. The file may have a `seed`, for the noise in the
features and for free places.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from fastsam3d.basics.files import write_text
from fastsam3d.basics.reading.json_files import read_json
from fastsam3d.basics.suggestions import suggestion
from fastsam3d.errors import UserError
from fastsam3d.mllm.scenes.rooms import IDENTIFIERS, Room, boxes_on, free_places
from fastsam3d.mllm.scenes.vocabulary import CLASSES, COLOUR_NAMES, SIZE_NAMES, SIZES

LARGEST_FILE = 1 << 20
"""Most bytes of a room file."""
NARROWEST, WIDEST = 1.0, 12.0
"""Shortest and longest wall, in metres. Walls of the rooms that the small model was trained on have up to 10 m."""
BUNDLED = "room.json"
_CLASS_NAMES = tuple(c.name for c in CLASSES)
_ROOM_KEYS, _OBJECT_KEYS = ("width", "depth", "seed", "objects"), ("class", "colour", "size", "place", "box", "id")
_SMALLEST, _TALLEST = 0.01, 4.0  # metres of an extent, and that a box may reach up
_SEEDS = 2**31


def bundled_room() -> Path:
    """Path of the bundled room file, in the source tree or in the installed package.

    Raises:
        UserError: it is missing.
    """
    package = Path(__file__).resolve().parents[2]
    for folder in (package / "examples", package.parent / "examples"):
        if (folder / BUNDLED).is_file():
            return folder / BUNDLED
    raise UserError(f"the bundled {BUNDLED} is missing from this installation: give a room file of your own.")


def read_room(path: str | Path) -> Room:
    """Reads a room file.

    Raises:
        UserError: the file is missing, too large or not JSON, or something in it is not possible in a room. The
            message names the file, and the object where it is about one.
    """
    value = read_json(path, "the room file", LARGEST_FILE)
    try:
        return room_of(value)
    except UserError as error:
        raise UserError(f"the room file {path}: {error}") from None


def write_room(room: Room, path: str | Path) -> Path:
    """Writes a room to a JSON file, with one object on each line and lengths rounded to millimetres.

    Raises:
        UserError: the file cannot be written.
    """
    lines = []
    for index in range(len(room)):
        entry = {
            "id": int(room.identifiers[index]),
            "class": _CLASS_NAMES[room.classes[index]],
            "colour": COLOUR_NAMES[room.colours[index]],
            "size": SIZE_NAMES[room.sizes[index]],
            "box": [_metres(value) for value in room.boxes[index]],
        }
        lines.append("  " + json.dumps(entry))
    head = f'"width": {_metres(room.width)}, "depth": {_metres(room.depth)}, "seed": {room.seed}'
    return write_text(path, "{" + head + ', "objects": [\n' + ",\n".join(lines) + "\n]}\n")


def room_of(value: Any) -> Room:
    """Makes a room from a JSON value.

    Raises:
        UserError: the value does not describe a room.
    """
    if not isinstance(value, Mapping):
        raise UserError('it does not describe a room: write {"width": 6, "depth": 5, "objects": [...]}')
    _check_keys(value, _ROOM_KEYS, "the room")
    width, depth = (_number(value, key, "the room", NARROWEST, WIDEST) for key in ("width", "depth"))
    seed = value.get("seed", 0)
    if type(seed) is not int or not 0 <= seed < _SEEDS:
        raise UserError(f"seed is {_short(seed)}: give a whole number from 0 to {_SEEDS - 1}, or leave it out")
    objects = value.get("objects")
    if not isinstance(objects, Sequence) or isinstance(objects, str) or not 1 <= len(objects) <= IDENTIFIERS:
        count = len(objects) if isinstance(objects, Sequence) and not isinstance(objects, str) else "no list of"
        raise UserError(f'it has {count} objects: give "objects": [...] with 1 to {IDENTIFIERS} of them')
    floor = np.array([width, depth])
    read = [_Object(entry, f"object {number}", floor) for number, entry in enumerate(objects, 1)]
    identifiers = _identifiers([item.identifier for item in read])
    order = np.argsort(identifiers)
    boxes = _boxes(read, floor, seed)
    classes, colours, sizes = (np.array([getattr(i, k) for i in read]) for k in ("kind", "colour", "size"))
    return Room(seed, width, depth, classes[order], colours[order], sizes[order], boxes[order], identifiers[order])


class _Object:
    """One entry of a file, checked.

    Args:
        entry: as read.
        where: it is called in messages.
        floor: (2,) width and depth of the room.
    """

    def __init__(self, entry: Any, where: str, floor: np.ndarray) -> None:
        if not isinstance(entry, Mapping):
            raise UserError(f'{where} is {_short(entry)}: write {{"class": "chair", "colour": "red"}}')
        _check_keys(entry, _OBJECT_KEYS, where)
        self.kind = _name(entry, "class", _CLASS_NAMES, where)
        where = f"{where} (a {_CLASS_NAMES[self.kind]})"
        self.colour = _name(entry, "colour", COLOUR_NAMES, where)
        self.identifier = entry.get("id")
        if self.identifier is not None and (type(self.identifier) is not int or not 0 <= self.identifier < IDENTIFIERS):
            raise UserError(f"{where} has the id {_short(self.identifier)}: give a number from 0 to {IDENTIFIERS - 1}")
        if "box" in entry and "place" in entry:
            raise UserError(f"{where} has a box and a place: give one of them")
        self.box = _numbers(entry, "box", 6, where)
        self.place = _numbers(entry, "place", 2, where) if self.box is None else self.box[:2]
        self._check_box(where, floor)
        if "size" in entry:
            self.size = _name(entry, "size", SIZE_NAMES, where)
        else:
            self.size = SIZE_NAMES.index("medium") if self.box is None else _nearest_size(self.kind, self.box[3:])

    @property
    def extents(self) -> np.ndarray:
        """(3,) of its box, or those that are usual for its class and size."""
        if self.box is not None:
            return self.box[3:]
        return np.array(CLASSES[self.kind].extents) * SIZES[SIZE_NAMES[self.size]]

    def _check_box(self, where: str, floor: np.ndarray) -> None:
        if self.place is not None and (np.abs(self.place) > floor / 2).any():
            raise UserError(
                f"{where} stands at x={self.place[0]:g}, y={self.place[1]:g}, outside of the walls: the room reaches "
                f"from {-floor[0] / 2:g} to {floor[0] / 2:g} in x, and from {-floor[1] / 2:g} to {floor[1] / 2:g} in y"
            )
        if self.box is None:
            return
        if (self.box[3:] < _SMALLEST).any() or (self.box[3:5] > floor).any():
            extents = " x ".join(f"{value:g}" for value in self.box[3:])
            raise UserError(f"{where} is {extents} m: give extents from {_SMALLEST:g} m up to those of the room")
        if self.box[2] < 0 or self.box[2] + self.box[5] / 2 > _TALLEST:
            raise UserError(
                f"{where} has a box with its centre at the height z={self.box[2]:g}: give a centre above the floor, "
                f"and a box that ends below {_TALLEST:g} m"
            )


def _boxes(objects: Sequence[_Object], floor: np.ndarray, seed: int) -> np.ndarray:
    """Boxes (N, 6) of all objects; those without a place get a free one."""
    extents = np.stack([item.extents for item in objects])
    placed = [index for index, item in enumerate(objects) if item.place is not None]
    order = [*placed, *(index for index in range(len(objects)) if objects[index].place is None)]
    given = np.array([objects[index].place for index in placed]).reshape(-1, 2)
    places = np.empty((len(objects), 2))
    places[order] = free_places(np.random.default_rng([seed, 3]), extents[order, :2], floor, given)
    boxes = boxes_on(places, np.array([item.kind for item in objects]), extents)
    for index, item in enumerate(objects):
        if item.box is not None:
            boxes[index] = item.box
    return boxes


def _identifiers(given: Sequence[int | None]) -> np.ndarray:
    """(N,) numbers of the objects; those without one get the lowest that are free."""
    taken = [number for number in given if number is not None]
    twice = {number for number in taken if taken.count(number) > 1}
    if twice:
        raise UserError(f"the id {min(twice)} occurs {taken.count(min(twice))} times: give each object its own")
    free = iter(sorted(set(range(IDENTIFIERS)) - set(taken)))
    return np.array([next(free) if number is None else number for number in given])


def _nearest_size(kind: int, extents: np.ndarray) -> int:
    """The size whose factor is nearest to that of a box, by the mean of the logarithms."""
    factor = np.log(extents / np.array(CLASSES[kind].extents)).mean()
    return int(np.abs(np.log(list(SIZES.values())) - factor).argmin())


def _check_keys(value: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for key in value:
        if key not in known:
            raise UserError(f"{where} has the unknown key {_short(key)}. {suggestion(key, known)}")


def _name(entry: Mapping[str, Any], key: str, known: Sequence[str], where: str) -> int:
    given = entry.get(key)
    if given is None:
        raise UserError(f"{where} has no {key}: give one of {', '.join(known)}")
    name = given.strip().lower() if isinstance(given, str) else ""
    if name not in known:
        raise UserError(f"{where} has the {key} {_short(given)}. {suggestion(name, known, len(known))}")
    return known.index(name)


def _number(value: Mapping[str, Any], key: str, where: str, low: float, high: float) -> float:
    given = value.get(key)
    if not _is_number(given) or not low <= given <= high:
        said = f"has no {key}" if given is None else f"has the {key} {_short(given)}"
        raise UserError(f"{where} {said}: give metres from {low:g} to {high:g}")
    return float(given)


def _numbers(entry: Mapping[str, Any], key: str, count: int, where: str) -> np.ndarray | None:
    given = entry.get(key)
    if given is None:
        return None
    if not isinstance(given, Sequence) or len(given) != count or not all(map(_is_number, given)):
        what = "x, y, z of its centre and its extents x, y, z" if count == 6 else "x, y of its centre"
        raise UserError(f"{where} has the {key} {_short(given)}: give {count} numbers in metres, {what}")
    return np.array(given, dtype=np.float64)


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e6  # so no NaN either


def _metres(value: float) -> float | int:
    rounded = round(float(value), 3)
    return int(rounded) if rounded == int(rounded) else rounded


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
