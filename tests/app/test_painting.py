"""Brush and eraser over what clicks and boxes selected, and the names of the objects."""

from __future__ import annotations

import math

import numpy as np
import pytest
from app_stand_in import around_marks

from fastsam3d.app.marking.painting import PaintedMarking, painted
from fastsam3d.errors import UserError

BOX = {"action": "box", "left": 0.25, "top": 0.25, "right": 0.5, "bottom": 0.75}


class CountingSegmenter:
    """The stand-in, which counts how often it is asked."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, image: np.ndarray, prompt: object) -> np.ndarray:
        self.calls += 1
        return around_marks(image, prompt)  # type: ignore[arg-type]


@pytest.fixture
def marking() -> PaintedMarking:
    return PaintedMarking(np.full((100, 200, 3), 128, dtype=np.uint8), CountingSegmenter(), limit=3)


def stroke(*points: tuple[float, float], radius: float = 0.05, inside: bool = True) -> dict:
    return {"action": "stroke", "points": [list(point) for point in points], "radius": radius, "inside": inside}


def test_a_stroke_covers_a_disc_and_a_line_has_round_ends() -> None:
    disc = painted((100, 200), ((100.0, 50.0),), 20.0)
    assert disc.sum() == pytest.approx(math.pi * 20**2, rel=0.04)
    rows, columns = np.nonzero(disc)
    assert (rows.mean() + 0.5, columns.mean() + 0.5) == pytest.approx((50, 100), abs=0.3)
    line = painted((100, 200), ((60.0, 50.0), (120.0, 50.0)), 10.0)
    assert line.sum() == pytest.approx(60 * 20 + math.pi * 10**2, rel=0.06)


def test_brush_alone_makes_an_object_and_undo_takes_it_back(marking: PaintedMarking) -> None:
    marking.apply(stroke((0.5, 0.5)))
    assert marking.masks[0].sum() == pytest.approx(math.pi * 10**2, rel=0.06)
    marking.apply({"action": "undo"})
    assert marking.masks == []


def test_strokes_win_over_a_box_and_over_earlier_strokes(marking: PaintedMarking) -> None:
    marking.apply(BOX)  # columns 50 to 99, rows 25 to 74
    box = marking.masks[0].copy()
    marking.apply(stroke((0.25, 0.5), inside=False))
    erased = marking.masks[0]
    assert not erased[50, 50] and erased[50, 70] and not (erased & ~box).any()
    marking.apply(stroke((0.25, 0.5), radius=0.02))
    assert marking.masks[0][50, 50] and not marking.masks[0][50, 57]
    marking.apply({"action": "box", "left": 0.2, "top": 0.2, "right": 0.6, "bottom": 0.8})
    assert not marking.masks[0][50, 57]  # a later box does not bring back what was erased
    for _ in range(3):
        marking.apply({"action": "undo"})
    assert (marking.masks[0] == box).all()


def test_a_stroke_cuts_nothing_again(marking: PaintedMarking) -> None:
    marking.apply(BOX)
    for x in (0.1, 0.2, 0.3):
        marking.apply(stroke((x, 0.5)))
    marking.apply({"action": "undo"})
    assert marking._segmenter.calls == 1  # type: ignore[attr-defined]


def test_names_stay_with_their_objects(marking: PaintedMarking) -> None:
    for x in (0.2, 0.5, 0.8):
        marking.apply(stroke((x, 0.5)))
        marking.apply({"action": "add"}) if x < 0.8 else None
    marking.apply({"action": "rename", "index": 1, "name": "  the <b>mug</b>  "})
    assert marking.names == ["Object 1", "the b mug b", "Object 3"]
    marking.apply({"action": "remove", "index": 0})
    assert marking.names == ["the b mug b", "Object 2"]
    assert [item["name"] for item in marking.view()["objects"]] == marking.names
    marking.apply({"action": "rename", "index": 0, "name": " .. "})
    assert marking.names[0] == "Object 1"


@pytest.mark.parametrize(
    "change",
    [
        {"points": []},
        {"points": [[0.5]]},
        {"points": [[0.5, "x"]]},
        {"points": [[0.5, float("nan")]]},
        {"points": [[0.5, 0.5]] * 2001},
        {"radius": 0},
        {"radius": 3},
        {"radius": None},
    ],
)
def test_strokes_that_the_page_never_sends_are_refused(marking: PaintedMarking, change: dict) -> None:
    with pytest.raises(UserError):
        marking.apply(stroke((0.5, 0.5)) | change)
    assert marking.masks == []


def test_an_eraser_needs_something_to_erase(marking: PaintedMarking) -> None:
    with pytest.raises(UserError, match="Mark the object first"):
        marking.apply(stroke((0.5, 0.5), inside=False))
    for wrong in ({"index": 9, "name": "a"}, {"index": 0, "name": 7}):
        with pytest.raises(UserError):
            marking.apply({"action": "rename"} | wrong)
