"""Rooms and questions: answers worked out by hand for a room that is written out here."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

from fastsam3d.errors import UserError
from fastsam3d.mllm.mini import tokens
from fastsam3d.mllm.scenes import wording
from fastsam3d.mllm.scenes.features import APPEARANCE, GEOMETRY, features_of
from fastsam3d.mllm.scenes.files import room_of
from fastsam3d.mllm.scenes.questions import KINDS, MOST_LISTED, TASK_OF, TASKS, make_questions, seen_direction
from fastsam3d.mllm.scenes.rooms import IDENTIFIERS, make_room

RED, BLUE, GREEN, TABLE, NEAR_VASE, LAMP, FAR_VASE = 3, 10, 20, 31, 42, 60, 127
"""Numbers of the objects of `ROOM`: three chairs, a table, a lamp, two vases of one colour."""
ROOM = room_of(
    {
        "width": 6,
        "depth": 6,
        "objects": [
            {"id": RED, "class": "chair", "colour": "red", "size": "large", "place": [-2, 0]},
            {"id": BLUE, "class": "chair", "colour": "blue", "size": "small", "place": [0, 0]},
            {"id": GREEN, "class": "chair", "colour": "green", "size": "small", "place": [2, -2]},
            {"id": TABLE, "class": "table", "colour": "white", "place": [1, -1]},
            {"id": NEAR_VASE, "class": "vase", "colour": "purple", "place": [-1, 2]},
            {"id": LAMP, "class": "lamp", "colour": "black", "place": [-2.6, -0.4]},
            {"id": FAR_VASE, "class": "vase", "colour": "purple", "place": [2, 2.5]},
        ],
    }
)


def answers(kind: str, pattern: str) -> dict[tuple[str | None, ...], str]:
    """Answers of many drawn questions of a kind, by what stands in the groups of a pattern of their text."""
    found = {}
    for question in make_questions(ROOM, 300, 5, [kind]):
        match = re.search(pattern, question.text)
        assert match, question.text
        assert found.setdefault(match.groups(), question.answer) == question.answer
        assert (question.kind, question.task) == (kind, TASK_OF[kind])
    return found


def called(number: int) -> str:
    return f"<OBJ{number:03d}>"


def test_a_relation_is_asked_where_one_object_alone_is_clearly_on_the_side():
    # From the table, the chairs are at (-3, 1), (-1, 1) and (1, -1), the vases at (-2, 3) and (1, 3.5). From the lamp,
    # all chairs and vases are on the right, and the red chair is neither in front nor behind. Only these two are
    # anchors, since other classes have several objects.
    assert answers("relation", r"(chair|vase) (?:is )?(left of|right of|in front of|behind) the (.+)$") == {
        ("chair", "right of", "table"): called(GREEN),
        ("chair", "in front of", "table"): called(GREEN),
        ("vase", "left of", "table"): called(NEAR_VASE),
        ("vase", "right of", "table"): called(FAR_VASE),
    }


def test_the_nearest_is_asked_where_it_is_clearly_nearer_than_the_second():
    # Distances from the lamp: of the chairs 0.72, 2.63 and 4.87, of the vases 2.88 and 5.44. From the table: of the
    # vases 3.61 and 3.64, and two chairs are 1.41 away. The limit is a factor of 0.6.
    assert answers("nearest", r"(chair|vase).* the (\w+)$") == {
        ("chair", "lamp"): called(RED),
        ("vase", "lamp"): called(NEAR_VASE),
    }


def test_counts_and_lists_of_all_objects_with_a_class_and_a_colour():
    counts = answers("count", r"(\w+) (chairs|tables|vases|lamps)")
    there = {("red", "chairs"), ("blue", "chairs"), ("green", "chairs"), ("white", "tables")}
    there |= {("purple", "vases"), ("black", "lamps")}
    assert {words for words, answer in counts.items() if answer != "zero"} == there
    assert counts["purple", "vases"] == "two" and counts["red", "chairs"] == "one"
    lists = answers("multi", r"(\w+) (chairs|tables|vases|lamps)")
    assert lists["purple", "vases"] == f"yes {called(NEAR_VASE)} and {called(FAR_VASE)}"
    assert lists["blue", "chairs"] == f"yes {called(BLUE)}" and lists["white", "chairs"] == "no"
    assert counts.keys() | lists.keys() <= {(colour, kind) for colour, _ in there for _, kind in there}


def test_single_objects_their_colours_and_places():
    assert answers("unique", r"(\w+ (?:chair|table|lamp))$") == {
        ("red chair",): called(RED),
        ("blue chair",): called(BLUE),
        ("green chair",): called(GREEN),
        ("white table",): called(TABLE),
        ("black lamp",): called(LAMP),
    }
    # A colour is asked of the only object of a class, or of a class and a size.
    colours = answers("colour", r"((?:large |small |medium )?(?:chair|table|vase|lamp))$")
    whites, blacks = (
        dict.fromkeys([(name,), (f"medium {name}",)], c) for name, c in (("table", "white"), ("lamp", "black"))
    )
    assert colours == whites | blacks | {("large chair",): "red"}
    captions = answers("caption", r"<OBJ(\d+)>")
    assert captions["031",] == "a medium white table at the front right"
    assert captions["042",] == "a medium purple vase at the back left"
    assert ("003",) not in captions  # in the middle between front and back


def test_what_is_there_and_what_is_not():
    found = answers("exists", r"a (\w+ (?:chair|table|vase|lamp))")
    assert {words for (words,), answer in found.items() if answer == "yes"} == {
        "red chair", "blue chair", "green chair", "white table", "purple vase", "black lamp",
    }  # fmt: skip
    assert found["purple chair",] == "no"


def test_colours_of_what_somebody_sees_who_stands_in_the_room():
    # From the table the green chair alone is in the east and in the south; one vase is in the west, one in the east.
    found = answers("situated", r"at the (\w+)(?: (?:and face|facing) (\w+))? what .* the (\w+) ((?:on|in|behind) .*)$")
    right, left, front, behind = "on my right", "on my left", "in front of me", "behind me"
    green = {"north": (right, behind), "east": (front, right), "south": (left, front), "west": (behind, left)}
    purple = {"north": (left, right), "east": (behind, front), "south": (right, left), "west": (front, behind)}
    expected = {}
    for name, colour, sides in (("chair", "green", green), ("vase", "purple", purple)):
        expected |= {("table", facing, name, side): colour for facing, two in sides.items() for side in two}
        expected |= {("table", None, name, side): colour for side in sides["north"]}  # who says nothing faces north
    assert found == expected


@pytest.mark.parametrize(
    ("side", "directions"),
    [
        ("front", [(0, 1), (1, 0), (0, -1), (-1, 0)]),
        ("left", [(-1, 0), (0, 1), (1, 0), (0, -1)]),
        ("right", [(1, 0), (0, -1), (-1, 0), (0, 1)]),
        ("behind", [(0, -1), (-1, 0), (0, 1), (1, 0)]),
    ],
)
def test_turning_on_the_spot_turns_the_sides(side, directions):
    facings = ("north", "east", "south", "west")
    assert [tuple(seen_direction(side, facing).tolist()) for facing in facings] == directions


def test_equal_seeds_give_equal_rooms_questions_and_features():
    for first, second in ((make_room(8, 30), make_room(8, 30)), (make_room(8, 30), make_room(9, 30))):
        same = all(
            np.array_equal(getattr(first, field.name), getattr(second, field.name))
            for field in dataclasses.fields(first)
        )
        assert same == (first.seed == second.seed)
        assert (make_questions(first, 9, 1) == make_questions(second, 9, 1)) == same
        assert features_of(first).geometry.equal(features_of(second).geometry) == same
    seen = features_of(make_room(8, 30), seed=1)
    assert seen.geometry.shape == (30, GEOMETRY) and seen.appearance.shape == (30, APPEARANCE)
    assert not seen.geometry.equal(features_of(make_room(8, 30), seed=2).geometry)


@pytest.mark.parametrize("objects", [0, IDENTIFIERS + 1])
def test_a_room_has_as_many_objects_as_there_are_identifiers(objects):
    with pytest.raises(UserError, match="1 to 128"):
        make_room(0, objects)


@pytest.mark.parametrize("objects", [1, 40, IDENTIFIERS])
def test_objects_are_within_the_walls_and_have_numbers_of_their_own(objects):
    room = make_room(4, objects)
    inside = np.abs(room.boxes[:, :2]) + room.boxes[:, 3:5] / 2 <= np.array([room.width, room.depth]) / 2 + 1e-5
    large = room.boxes[:, 3:5] > np.array([room.width, room.depth])
    assert (inside | large).all() and (room.boxes[:, 3:] > 0).all()
    assert (np.diff(room.identifiers) > 0).all() and 0 <= room.identifiers.min() <= room.identifiers.max() < IDENTIFIERS


def test_every_kind_occurs_and_all_words_are_known():
    kinds, tasks, listed = set(), set(), 0
    for seed in range(6):
        room = make_room(seed, 40)
        for question in make_questions(room, 36, seed):
            kinds.add(question.kind)
            tasks.add(question.task)
            assert tokens.decode([*tokens.encode(question.answer), tokens.END]) == question.answer
            assert len(tokens.encode(question.text)) == len(question.text.split())
            listed = max(listed, question.answer.count("<OBJ"))
            said = {wording.identifier(room.identifiers[index]) for index in question.targets}
            assert set(re.findall(r"<OBJ\d+>", question.answer)) <= said
    assert kinds == set(KINDS) and tasks == set(TASKS) and 3 <= listed <= MOST_LISTED
