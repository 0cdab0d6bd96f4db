"""Boxes and points as text and numbers, and what they are for one object and for several."""

from __future__ import annotations

import pytest

from fastsam3d.errors import UserError
from fastsam3d.jobs.reading.marks import Marks, marks_of, marks_within, prompts_of


def marks(box=None, point=None, all=False) -> Marks:
    return marks_of({"box": box, "point": point, "all": all})


@pytest.mark.parametrize(
    "box",
    ["10,20,30,40", " 10, 20, 30, 40 ", [10, 20, 30, 40], ["10,20,30,40"], [[10, 20, 30, 40]], (10.0, 20, 30, 40)],
)
def test_a_box_is_read_in_every_spelling(box) -> None:
    assert marks(box).boxes == ((10.0, 20.0, 30.0, 40.0),)


def test_several_boxes_and_points_are_read() -> None:
    found = marks("0,0,9,9;10,10,20,20", ["5,6", "-0,7", "8.5,9;-1,2"])
    assert found.boxes == ((0, 0, 9, 9), (10, 10, 20, 20))
    assert found.points == ((5, 6, True), (0, 7, False), (8.5, 9, True), (1, 2, False))
    again = marks(**found.settings())
    assert again == found and found.given and not marks().given


def test_a_point_may_be_numbers() -> None:
    assert marks(point=[(3, 4)]).points == ((3, 4, True),)
    assert marks(point=[3, 4]).points == ((3, 4, True),)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"box": "1,2,3"}, "--box 1,2,3 cannot be read. Give four numbers"),
        ({"box": "1,2,3,x"}, "cannot be read"),
        ({"box": "1,2,3,nan"}, "cannot be read"),
        ({"box": "1,2,3,inf"}, "cannot be read"),
        ({"box": 7}, "cannot be read"),
        ({"box": "30,10,10,40"}, "Did you mean --box 10,10,30,40"),
        ({"box": "10,40,30,10"}, "Did you mean --box 10,10,30,40"),
        ({"box": "10,10,10,40"}, "is empty or too small"),
        ({"point": "3"}, "--point 3 cannot be read. Give two numbers"),
        ({"point": "3,4,5"}, "cannot be read"),
        ({"point": "x,4"}, "cannot be read"),
        ({"point": "-3,4"}, "every --point is on the background"),
        ({"box": "1,2,30,40", "all": True}, "--all finds the objects by itself"),
        ({"all": "yes"}, "give true or false"),
        ({"box": ""}, "--box is empty. Give four numbers"),
        ({"box": [""]}, "--box is empty"),
        ({"box": ["1,2,30,40", " ; "]}, "--box is empty"),
        ({"point": ""}, "--point is empty. Give two numbers"),
    ],
)
def test_unusable_marks_are_explained(given, message) -> None:
    with pytest.raises(UserError) as caught:
        marks(**given)
    assert message in str(caught.value)


def test_marks_outside_of_the_picture_are_refused_and_large_boxes_cut() -> None:
    with pytest.raises(UserError, match="outside of the picture, which is 100 x 80 pixels"):
        marks_within(marks("100,0,150,50"), 100, 80)
    with pytest.raises(UserError, match=r"--point -20,81 lies outside"):
        marks_within(marks("0,0,50,50", "-20,81"), 100, 80)
    found, told = marks_within(marks("-5,10,50,200"), 100, 80)
    assert found.boxes == ((0, 10, 50, 80),) and len(told) == 1 and "ends at the rim" in told[0]
    assert marks_within(marks("0,0,100,80", "100,80"), 100, 80)[1] == []


def test_marks_of_one_object_belong_together() -> None:
    found = marks("0,0,50,50", ["10,10", "-60,60"])
    assert prompts_of(found, several=False) == [((0, 0, 50, 50), ((10, 10, True), (60, 60, False)))]
    with pytest.raises(UserError, match="Use infer_scene for several"):
        prompts_of(marks("0,0,9,9;10,10,20,20"), several=False)


def test_of_several_objects_each_box_and_each_free_point_is_one() -> None:
    found = marks("0,0,50,50", ["10,10", "-40,40", "70,70", "90,90"])
    assert prompts_of(found, several=True) == [
        ((0, 0, 50, 50), ((10, 10, True), (40, 40, False))),
        (None, ((70, 70, True), (90, 90, False), (40, 40, False))),
        (None, ((90, 90, True), (70, 70, False), (40, 40, False))),
    ]
