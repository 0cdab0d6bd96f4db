"""Questions about a room, with answers that are computed from it.

Nine kinds in the five tasks of 3D language models: grounding (ScanRefer), grounding of several objects or none
(Multi3DRefer), captions (Scan2Cap), questions (ScanQA) and questions of somebody who stands in the room (SQA3D).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from fastsam3d.mllm.scenes import wording
from fastsam3d.mllm.scenes.rooms import Room
from fastsam3d.mllm.scenes.vocabulary import (
    CLASSES,
    COLOUR_NAMES,
    COLOURS,
    DIRECTION_NAMES,
    DIRECTIONS,
    FACING_NAMES,
    FACINGS,
    SIZE_NAMES,
)

GROUNDING, MULTI_GROUNDING, CAPTION, QUESTION, SITUATED = TASKS = (
    "grounding",
    "multi_grounding",
    "caption",
    "question",
    "situated",
)
CLEAR = 0.5  # metres by which a thing has to be on a side
NEARER = 0.6  # a nearest object is at most this share as far as the second
MOST_LISTED = 4  # objects of an answer that lists or counts them
_TRIES = 40  # draws for one question before another kind is taken


@dataclass(frozen=True)
class Question:
    """A question about a room.

    Attributes:
        task: one of `TASKS`.
        kind: one of `KINDS`.
        text: the question in words.
        answer: the answer in words; objects are named by their identifiers.
        targets: indices of the objects that the answer is about; may be empty.
        anchors: indices of the objects that others are compared with, in the order of the text.
    """

    task: str
    kind: str
    text: str
    answer: str
    targets: tuple[int, ...]
    anchors: tuple[int, ...] = ()


Draw = Callable[[Room, np.random.Generator], "Question | None"]


def make_questions(room: Room, count: int, seed: int, kinds: Sequence[str] | None = None) -> list[Question]:
    """Draws questions about a room, about equally many of each kind. Equal arguments give equal questions.

    Args:
        room: the room that they are about.
        count: number of questions. There are fewer only if the room allows no question of any kind.
        seed: seed of the draws.
        kinds: some of `KINDS`; None: all. A kind that is named twice comes twice as often. Where the room allows no
            question of a kind, other kinds replace it.
    """
    rng = np.random.default_rng([seed, 2])
    names = list(KINDS if kinds is None else kinds)
    questions: list[Question] = []
    impossible: set[str] = set()
    while len(questions) < count and len(impossible) < len(set(names)):
        for name in rng.permutation(names):
            if name not in impossible and len(questions) < count:
                found = _tried(KINDS[name], room, rng)
                if found is None:
                    impossible.add(name)
                else:
                    questions.append(found)
    return questions


def _tried(draw: Draw, room: Room, rng: np.random.Generator) -> Question | None:
    for _ in range(_TRIES):
        found = draw(room, rng)
        if found is not None:
            return found
    return None


def _unique(room: Room, rng: np.random.Generator) -> Question | None:
    index = _described_alone(room, rng)
    if index is None:
        return None
    name = _phrase(room, index)
    return _grounding("unique", wording.choose(wording.UNIQUE, rng, name=name), room, index)


def _relation(room: Room, rng: np.random.Generator) -> Question | None:
    """The only one of several that is clearly on one side of an anchor; all others are clearly on the other side."""
    anchor, candidates = _anchor_and_candidates(room, rng)
    if anchor is None:
        return None
    side = DIRECTION_NAMES[rng.integers(4)]
    offsets = (room.places[candidates] - room.places[anchor]) @ np.array(DIRECTIONS[side])
    if (offsets > CLEAR).sum() != 1 or (np.abs(offsets) < CLEAR).any():
        return None
    index = int(candidates[int(offsets.argmax())])
    words = wording.choose(
        wording.RELATION, rng, name=_class_name(room, index), side=wording.SIDES[side], anchor=_class_name(room, anchor)
    )
    return _grounding("relation", words, room, index, (anchor,))


def _nearest(room: Room, rng: np.random.Generator) -> Question | None:
    anchor, candidates = _anchor_and_candidates(room, rng)
    if anchor is None:
        return None
    index = _clearly_nearest(room, anchor, candidates)
    if index is None:
        return None
    words = wording.choose(wording.NEAREST, rng, name=_class_name(room, index), anchor=_class_name(room, anchor))
    return _grounding("nearest", words, room, index, (anchor,))


def _multi(room: Room, rng: np.random.Generator) -> Question | None:
    found = _set_of(room, rng)
    if found is None:
        return None
    kind, colour, targets = found
    words = wording.choose(wording.MULTI, rng, names=f"{COLOUR_NAMES[colour]} {CLASSES[kind].plural}")
    identifiers = [wording.identifier(room.identifiers[index]) for index in targets]
    return Question(MULTI_GROUNDING, "multi", words, wording.listed(identifiers), tuple(map(int, targets)))


def _caption(room: Room, rng: np.random.Generator) -> Question | None:
    index = int(rng.integers(len(room)))
    x, y = room.places[index]
    if min(abs(x), abs(y)) < CLEAR / 2:
        return None
    words = wording.choose(wording.DESCRIBE, rng, identifier=wording.identifier(room.identifiers[index]))
    where = f"{'front' if y < 0 else 'back'} {'left' if x < 0 else 'right'}"
    return Question(CAPTION, "caption", words, f"a {room.name(index)} at the {where}", (index,))


def _colour(room: Room, rng: np.random.Generator) -> Question | None:
    """Of the only object of a class, or of a class and a size."""
    sized = bool(rng.random() < 0.5)
    index = int(rng.integers(len(room)))
    same = room.described(room.classes[index])
    if sized:
        same = same[room.sizes[same] == room.sizes[index]]
    if len(same) != 1:
        return None
    name = f"{SIZE_NAMES[room.sizes[index]]} {_class_name(room, index)}" if sized else _class_name(room, index)
    words = wording.choose(wording.COLOUR, rng, name=name)
    return Question(QUESTION, "colour", words, COLOUR_NAMES[room.colours[index]], (index,))


def _exists(room: Room, rng: np.random.Generator) -> Question | None:
    """As often yes as no; in a room without it there are its class and its colour, but not together."""
    there = bool(rng.random() < 0.5)
    possible = np.argwhere((room.pairs > 0) if there else _absent_pairs(room))
    if not len(possible):
        return None
    kind, colour = possible[rng.integers(len(possible))]
    words = wording.choose(wording.EXISTS, rng, name=f"{COLOUR_NAMES[colour]} {CLASSES[kind].name}")
    targets = tuple(map(int, room.described(kind, colour)))
    return Question(QUESTION, "exists", words, "yes" if there else "no", targets)


def _count(room: Room, rng: np.random.Generator) -> Question | None:
    found = _set_of(room, rng)
    if found is None:
        return None
    kind, colour, targets = found
    words = wording.choose(wording.COUNT, rng, names=f"{COLOUR_NAMES[colour]} {CLASSES[kind].plural}")
    return Question(QUESTION, "count", words, wording.NUMBERS[len(targets)], tuple(map(int, targets)))


def _situated(room: Room, rng: np.random.Generator) -> Question | None:
    """The colour of the only one of several that is clearly on one side of somebody; the others are opposite."""
    here, candidates = _anchor_and_candidates(room, rng)
    if here is None:
        return None
    said = bool(rng.random() < 2 / 3)
    facing = FACING_NAMES[rng.integers(4)] if said else FACING_NAMES[0]
    side = DIRECTION_NAMES[rng.integers(4)]
    offsets = (room.places[candidates] - room.places[here]) @ seen_direction(side, facing)
    if (offsets > CLEAR).sum() != 1 or (np.abs(offsets) < CLEAR).any():
        return None
    index = int(candidates[int(offsets.argmax())])
    forms = wording.SITUATED if said else wording.SITUATED_FACING_NORTH
    parts = {"here": _class_name(room, here), "name": _class_name(room, index), "side": wording.MY_SIDES[side]}
    words = wording.choose(forms, rng, facing=facing, **parts)
    return Question(SITUATED, "situated", words, COLOUR_NAMES[room.colours[index]], (index,), (here,))


def seen_direction(side: str, facing: str) -> np.ndarray:
    """Direction (x, y) in the room that is on a given side of a person.

    Args:
        side: a key of `wording.MY_SIDES`; "front" is the direction that the person faces.
        facing: a key of `FACINGS`.
    """
    x, y = {"left": (-1, 0), "right": (1, 0), "front": (0, 1), "behind": (0, -1)}[side]
    for _ in range(FACINGS[facing]):  # clockwise, as they turn
        x, y = y, -x
    return np.array((x, y))


def _grounding(kind: str, words: str, room: Room, index: int, anchors: tuple[int, ...] = ()) -> Question:
    return Question(GROUNDING, kind, words, wording.identifier(room.identifiers[index]), (index,), anchors)


def _class_name(room: Room, index: int) -> str:
    return CLASSES[room.classes[index]].name


def _phrase(room: Room, index: int) -> str:
    return f"{COLOUR_NAMES[room.colours[index]]} {_class_name(room, index)}"


def _described_alone(room: Room, rng: np.random.Generator) -> int | None:
    """An object that is the only one of its class and colour."""
    alone = np.argwhere(room.pairs == 1)
    if not len(alone):
        return None
    kind, colour = alone[rng.integers(len(alone))]
    return int(room.described(kind, colour)[0])


def _only_one(room: Room, rng: np.random.Generator) -> int | None:
    """An object that is the only one of its class."""
    alone = np.nonzero(room.class_counts == 1)[0]
    return int(room.described(rng.choice(alone))[0]) if len(alone) else None


def _anchor_and_candidates(room: Room, rng: np.random.Generator) -> tuple[int | None, np.ndarray]:
    """The only object of a class, and those of another class with two to five objects."""
    anchor = _only_one(room, rng)
    several = (room.class_counts >= 2) & (room.class_counts <= 5)
    if anchor is not None:
        several[room.classes[anchor]] = False
    kinds = np.nonzero(several)[0]
    if anchor is None or not len(kinds):
        return None, kinds
    return anchor, room.described(rng.choice(kinds))


def _clearly_nearest(room: Room, anchor: int, candidates: np.ndarray) -> int | None:
    distances = np.linalg.norm(room.places[candidates] - room.places[anchor], axis=1)
    order = distances.argsort()
    return int(candidates[order[0]]) if distances[order[0]] < NEARER * distances[order[1]] else None


def _set_of(room: Room, rng: np.random.Generator) -> tuple[int, int, np.ndarray] | None:
    """A class and a colour that are both in the room, and the objects that have both: none or a few, about evenly."""
    wanted = int(rng.integers(MOST_LISTED + 1))
    possible = np.argwhere(room.pairs == wanted if wanted else _absent_pairs(room))
    if not len(possible):
        return None
    kind, colour = possible[rng.integers(len(possible))]
    return int(kind), int(colour), room.described(kind, colour)


def _absent_pairs(room: Room) -> np.ndarray:
    """(classes, colours) bool: not in the room together, though each of them is."""
    colours_there = np.bincount(room.colours, minlength=len(COLOURS)) > 0
    return (room.pairs == 0) & (room.class_counts > 0)[:, None] & colours_there


KINDS: dict[str, Draw] = {
    "unique": _unique,
    "relation": _relation,
    "nearest": _nearest,
    "multi": _multi,
    "caption": _caption,
    "colour": _colour,
    "exists": _exists,
    "count": _count,
    "situated": _situated,
}
"""By kind of question, the function that draws one. It returns None where a draw fails."""
TASK_OF = {
    **dict.fromkeys(("unique", "relation", "nearest"), GROUNDING),
    **{"multi": MULTI_GROUNDING, "caption": CAPTION},
    **dict.fromkeys(("colour", "exists", "count"), QUESTION),
    "situated": SITUATED,
}
"""The task of each kind."""
