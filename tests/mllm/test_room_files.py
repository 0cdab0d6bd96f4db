"""Rooms as files: what is filled in, what is refused and how that is said, and the bundled room."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from fastsam3d.errors import UserError
from fastsam3d.mllm.scenes.files import LARGEST_FILE, bundled_room, read_room, room_of, write_room
from fastsam3d.mllm.scenes.questions import KINDS, make_questions
from fastsam3d.mllm.scenes.rooms import Room, make_room

CHAIR = {"class": "chair", "colour": "red"}


def room_with(*objects: object, **more: object) -> Room:
    return room_of({"width": 4, "depth": 3, "objects": list(objects)} | more)


def saved(tmp_path, text: str):
    path = tmp_path / "my room.json"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_class_and_a_colour_are_enough():
    room = room_with(CHAIR, CHAIR | {"size": "large"}, {"class": "Pillow", "colour": " Blue"})
    assert [room.name(index) for index in range(3)] == ["medium red chair", "large red chair", "medium blue pillow"]
    assert room.identifiers.tolist() == [0, 1, 2]
    # Extents of a chair: 0.5 x 0.5 x 0.9 m, 1.35 times as much for a large one. A pillow lies 0.45 m above the floor.
    assert room.boxes[0, 2:] == pytest.approx([0.45, 0.5, 0.5, 0.9])
    assert room.boxes[1, 2:] == pytest.approx([0.6075, 0.675, 0.675, 1.215])
    assert room.boxes[2, 2:] == pytest.approx([0.525, 0.45, 0.45, 0.15])
    assert (np.abs(room.places) + room.boxes[:, 3:5] / 2 <= [2, 1.5]).all()
    gap = np.abs(room.places[0] - room.places[1]) - (room.boxes[0, 3:5] + room.boxes[1, 3:5]) / 2
    assert gap.max() >= 0  # they got places where they do not overlap


def test_places_boxes_and_numbers_are_kept_and_free_ones_filled_in():
    room = room_with(
        CHAIR | {"id": 9, "place": [1, -0.5]},
        CHAIR | {"box": [0, 1, 0.4, 0.4, 0.4, 0.8]},
        CHAIR | {"id": 0},
        {"class": "table", "colour": "white", "box": [-1, 0, 0.5, 1.6, 1.1, 1.0]},
        seed=7,
    )
    # The lowest free numbers are 1 and 2; the rows are in the order of the numbers.
    assert room.identifiers.tolist() == [0, 1, 2, 9] and room.seed == 7
    assert room.boxes[3] == pytest.approx([1, -0.5, 0.45, 0.5, 0.5, 0.9])
    assert room.boxes[1] == pytest.approx([0, 1, 0.4, 0.4, 0.4, 0.8])
    # Sides of a medium table: 1.2, 0.8, 0.75 m; this one is about 1.35 times as large. The chair is 0.8, 0.8 and 0.89
    # times a medium one: the mean logarithm -0.19 is nearer to that of 0.75 (-0.29) than to that of 1 (0).
    assert room.name(2) == "large white table" and room.name(1) == "small red chair"


def test_a_room_is_read_as_it_was_written(tmp_path):
    room = make_room(11, 50)
    again = read_room(write_room(room, tmp_path / "deep" / "room.json"))
    for name in ("classes", "colours", "sizes", "identifiers"):
        assert np.array_equal(getattr(again, name), getattr(room, name))
    assert np.abs(again.boxes - room.boxes).max() <= 5.1e-4  # written to the millimetre
    assert again.width == pytest.approx(room.width, abs=5e-4) and again.seed == 11
    text = (tmp_path / "deep" / "room.json").read_text()
    assert len(text.splitlines()) == 52 and text == write_room(again, tmp_path / "copy.json").read_text()


@pytest.mark.parametrize(
    ("objects", "said"),
    [
        ([{"class": "armchair", "colour": "red"}], r"object 1 has the class \"armchair\"\. Did you mean chair"),
        (
            [CHAIR, {"class": "chair", "colour": "pink"}],
            r"object 2 \(a chair\) has the colour \"pink\"\. Known: red, or",
        ),
        ([{"colour": "red"}], "object 1 has no class: give one of chair, table"),
        ([CHAIR | {"color": "red"}], 'object 1 has the unknown key "color"\\. Did you mean colour'),
        ([CHAIR | {"size": "huge"}], 'size "huge".*small, medium, large'),
        ([CHAIR | {"id": 128}], "id 128: give a number from 0 to 127"),
        ([CHAIR | {"id": True}], "id true"),
        ([CHAIR | {"id": 5}, CHAIR | {"id": 5}], "the id 5 occurs 2 times"),
        ([CHAIR | {"place": [2.1, 0]}], r"object 1 \(a chair\) stands at x=2.1, y=0, outside.* from -2 to 2 in x"),
        ([CHAIR | {"place": [0, 0], "box": [0] * 6}], "a box and a place"),
        ([CHAIR | {"place": [0]}], r"the place \[0\]: give 2 numbers"),
        ([CHAIR | {"box": [0, 0, 0.5, 1, 1]}], "the box .*: give 6 numbers in metres"),
        ([CHAIR | {"box": [0, 0, 0.5, 1, 1, "1"]}], "give 6 numbers"),
        ([CHAIR | {"box": [0, 0, 0.5, 5, 1, 1]}], "is 5 x 1 x 1 m: give extents from 0.01 m up to those of the room"),
        ([CHAIR | {"box": [0, 0, 0.5, 1, 0, 1]}], "is 1 x 0 x 1 m"),
        ([CHAIR | {"box": [0, 0, 9, 1, 1, 1]}], "at the height z=9"),
        ([CHAIR | {"place": [1e400, 0]}], "give 2 numbers"),
        (["chair"], 'object 1 is "chair": write'),
        ([], "it has 0 objects"),
        ([CHAIR] * 129, "it has 129 objects.*1 to 128"),
        ("chairs", "it has no list of objects"),
    ],
)
def test_what_is_wrong_with_an_object_is_said_with_a_way_out(objects, said):
    with pytest.raises(UserError, match=said):
        room_of({"width": 4, "depth": 3, "objects": objects})


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"width": 40}, "the room has the width 40: give metres from 1 to 12"),
        ({"width": None}, "the room has no width"),
        ({"depth": "3"}, 'depth "3"'),
        ({"width": 10**400}, "give metres"),
        ({"seed": -1}, "seed is -1"),
        ({"heigth": 3}, "the room has the unknown key"),
    ],
)
def test_what_is_wrong_with_a_room_is_said(more, said):
    with pytest.raises(UserError, match=said):
        room_with(CHAIR, **more)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[1, 2]", "it does not describe a room"),
        ("{", "cannot be read as JSON"),
        ('{"width": NaN, "depth": 3, "objects": []}', "NaN is no number"),
        ("[" * 100_000, "nested too deeply|cannot be read"),
        (json.dumps({"width": 4, "depth": 3, "objects": [{"class": "chair"}]}), r"object 1 \(a chair\) has no colour"),
        (" " * (LARGEST_FILE + 1), "up to 1 are read"),
    ],
)
def test_messages_name_the_file(tmp_path, text, said):
    path = saved(tmp_path, text)
    with pytest.raises(UserError, match=said) as raised:
        read_room(path)
    assert str(path) in str(raised.value)
    with pytest.raises(UserError, match=re.escape(f"{tmp_path / 'none.json'} does not exist")):
        read_room(tmp_path / "none.json")


def test_the_bundled_room_allows_every_kind_of_question():
    room = read_room(bundled_room())
    assert len(room) == 40
    for kind in KINDS:
        assert make_questions(room, 3, 0, [kind]), kind
    # The only white table, and two red chairs: one beside the table, one at the desk.
    assert [room.name(index) for index in (0, 1, 10)] == ["large white table", "medium red chair", "medium red chair"]
