"""Makes rooms full of objects from a seed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fastsam3d.errors import UserError
from fastsam3d.mllm.scenes.vocabulary import CLASSES, COLOUR_NAMES, COLOURS, SIZE_NAMES, SIZES

IDENTIFIERS = 128
"""Number of identifiers of objects: `<OBJ000>` to `<OBJ127>`."""
FLOOR_PER_OBJECT = 0.6  # square metres, so that larger sets of objects have larger rooms
MOST_SINGLE = 8  # classes of which a room has one object
_TRIES = 12  # places that are tried for an object before it may overlap another


@dataclass(frozen=True)
class Room:
    """The objects of one room, as arrays of N rows.

    Attributes:
        seed: seed that the room was made from.
        width, depth: extents of the floor in x and y, in metres. Its centre is the origin.
        classes: (N,) index into `CLASSES`.
        colours: (N,) index into `COLOURS`.
        sizes: (N,) index into `SIZES`.
        boxes: (N, 6) float32: centre x, y, z and full extents x, y, z in metres; axis-aligned, z up, floor at 0.
        identifiers: (N,) int64 identifiers, such as 12 for `<OBJ012>`, ascending.
    """

    seed: int
    width: float
    depth: float
    classes: np.ndarray
    colours: np.ndarray
    sizes: np.ndarray
    boxes: np.ndarray
    identifiers: np.ndarray

    def __len__(self) -> int:
        return len(self.classes)

    @cached_property
    def places(self) -> np.ndarray:
        """(N, 2) float64: centres on the floor, in metres."""
        return self.boxes[:, :2].astype(np.float64)

    @cached_property
    def class_counts(self) -> np.ndarray:
        """(classes,) number of objects of each class."""
        return np.bincount(self.classes, minlength=len(CLASSES))

    @cached_property
    def pairs(self) -> np.ndarray:
        """(classes, colours) number of objects of each class and colour."""
        counts = np.zeros((len(CLASSES), len(COLOURS)), np.int64)
        np.add.at(counts, (self.classes, self.colours), 1)
        return counts

    def described(self, kind: int, colour: int | None = None) -> np.ndarray:
        """Indices of the objects of a class, and of a colour where one is given."""
        found = self.classes == kind
        return np.nonzero(found if colour is None else found & (self.colours == colour))[0]

    def name(self, index: int) -> str:
        """Describes an object in words: "large red chair"."""
        size, colour = SIZE_NAMES[self.sizes[index]], COLOUR_NAMES[self.colours[index]]
        return f"{size} {colour} {CLASSES[self.classes[index]].name}"


def make_room(seed: int, objects: int) -> Room:
    """Makes a room of `objects` objects. Equal arguments give equal rooms.

    Some classes have one object, others have several, and not every class occurs.

    Raises:
        UserError: `objects` is not between 1 and the number of identifiers.
    """
    if not 1 <= objects <= IDENTIFIERS:
        raise UserError(f"a room of {objects} objects: make one of 1 to {IDENTIFIERS}")
    rng = np.random.default_rng(seed)
    area, aspect = max(FLOOR_PER_OBJECT * objects, 6.0), rng.uniform(0.75, 1.33)
    width, depth = float(np.sqrt(area * aspect)), float(np.sqrt(area / aspect))
    classes = _classes(rng, objects)
    colours, sizes = rng.integers(len(COLOURS), size=objects), rng.integers(len(SIZES), size=objects)
    factors = np.array(list(SIZES.values()))[sizes, None] * rng.uniform(0.94, 1.06, (objects, 3))
    extents = np.array([c.extents for c in CLASSES])[classes] * factors
    turned = rng.random(objects) < 0.5
    extents[turned, :2] = extents[turned, 1::-1]
    places = free_places(rng, extents[:, :2], np.array([width, depth]))
    boxes = boxes_on(places, classes, extents)
    identifiers = np.sort(rng.permutation(IDENTIFIERS)[:objects])
    return Room(seed, width, depth, classes, colours, sizes, boxes, identifiers)


def _classes(rng: np.random.Generator, objects: int) -> np.ndarray:
    """Classes (N,) of the objects, in any order: a few classes with one object, and others that share the rest."""
    drawn = rng.permutation(len(CLASSES))
    single = min(int(rng.integers(3, MOST_SINGLE + 1)), objects // 2)
    most = int(np.clip((objects - single) // 3, 1, len(CLASSES) - single))
    shared = drawn[single : single + rng.integers(min(4, most), most + 1)]
    classes = np.concatenate([drawn[:single], shared[rng.integers(len(shared), size=objects - single)]])
    return rng.permutation(classes)


def boxes_on(places: np.ndarray, classes: np.ndarray, extents: np.ndarray) -> np.ndarray:
    """Makes boxes (N, 6) float32, see `Room`, of objects at the usual heights of their classes.

    Args:
        places: (N, 2) centres on the floor.
        classes: (N,) index into `CLASSES`.
        extents: (N, 3) full extents x, y, z in metres.
    """
    bottoms = np.array([c.bottom for c in CLASSES])[classes]
    return np.concatenate([places, (bottoms + extents[:, 2] / 2)[:, None], extents], axis=1).astype(np.float32)


def free_places(
    rng: np.random.Generator, extents: np.ndarray, room: np.ndarray, given: np.ndarray | None = None
) -> np.ndarray:
    """Draws centres (N, 2) on the floor, inside the walls. Of a few draws, the one with the least overlap is taken.

    Args:
        rng: draws the places.
        extents: (N, 2) extents of the objects in x and y, in metres.
        room: (2,) width and depth of the floor, in metres.
        given: (M, 2) centres of the first M objects, which are not drawn; None: all are drawn.
    """
    places = np.zeros_like(extents)
    first = 0 if given is None else len(given)
    if given is not None:
        places[:first] = given
    free = np.maximum(room - extents, 0.0) / 2
    for index in range(first, len(extents)):
        tried = rng.uniform(-1, 1, (_TRIES, 2)) * free[index]
        apart = np.abs(tried[:, None] - places[:index]) - (extents[index] + extents[:index]) / 2
        overlap = np.prod(np.clip(-apart, 0, None), axis=2).sum(1)  # square metres, roughly
        places[index] = tried[int(overlap.argmin())]
    return places
