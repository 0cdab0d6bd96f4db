"""What is done in the picture: objects, clicks, boxes, undo, and what the page is told."""

from __future__ import annotations

import math

import numpy as np
import pytest
from app_stand_in import around_marks
from PIL import Image

from fastsam3d.app.marking.marks import Marking, color_of, data_url, fitted
from fastsam3d.errors import UserError


@pytest.fixture
def marking() -> Marking:
    return Marking(np.full((100, 200, 3), 128, dtype=np.uint8), around_marks, limit=2)


def click(x: float, y: float, inside: bool = True) -> dict:
    return {"action": "click", "x": x, "y": y, "inside": inside}


BOX = {"action": "box", "left": 0.75, "top": 0.25, "right": 0.5, "bottom": 0.75}


def test_clicks_are_fractions_of_the_picture(marking: Marking) -> None:
    marking.apply(click(0.25, 0.5))
    assert marking.objects[0].prompt.clicks == ((50.0, 50.0, True),)
    rows, columns = np.nonzero(marking.masks[0])
    assert (rows.mean(), columns.mean()) == pytest.approx((49.5, 49.5))


def test_a_box_may_be_drawn_from_any_corner(marking: Marking) -> None:
    marking.apply(BOX)
    assert marking.objects[0].prompt.box == (100.0, 25.0, 150.0, 75.0)
    assert marking.masks[0].sum() == 50 * 50


def test_undo_goes_back_one_step_and_clear_to_the_start(marking: Marking) -> None:
    marking.apply(click(0.2, 0.5))
    before = marking.masks[0].copy()
    marking.apply(BOX)
    marking.apply({"action": "undo"})
    assert (marking.masks[0] == before).all()
    marking.apply({"action": "undo"})
    assert marking.masks == []
    marking.apply({"action": "undo"})  # nothing is left to undo: no error
    marking.apply(BOX)
    marking.apply({"action": "clear"})
    assert marking.masks == [] and len(marking.objects) == 1


def test_several_objects(marking: Marking) -> None:
    marking.apply(click(0.2, 0.5))
    marking.apply({"action": "add"})
    marking.apply({"action": "add"})  # the second is still empty: no third
    assert len(marking.objects) == 2 and marking.active == 1
    marking.apply(BOX)
    assert len(marking.masks) == 2 and marking.view()["room"] is False
    with pytest.raises(UserError, match="Up to 2 objects"):
        marking.apply({"action": "add"})
    marking.apply({"action": "activate", "index": 0})
    marking.apply({"action": "remove", "index": 0})
    assert [mask.sum() for mask in marking.masks] == [2500] and marking.active == 0
    marking.apply({"action": "remove", "index": 0})
    assert marking.masks == [] and len(marking.objects) == 1


def test_an_uploaded_mask_is_an_object_that_clicks_add_to_and_take_from(marking: Marking) -> None:
    given = np.zeros((100, 200), dtype=bool)
    given[:50, :100] = True
    marking.add_mask(given)
    assert (marking.masks[0] == given).all()
    marking.apply(click(0.75, 0.75))
    assert marking.masks[0].sum() > given.sum() and marking.masks[0][75, 150]
    marking.apply({"action": "undo"})
    marking.apply(click(0.2, 0.2, inside=False))
    assert not marking.masks[0][20, 40] and marking.masks[0][2, 2]
    marking.add_mask(given)
    assert len(marking.objects) == 2


@pytest.mark.parametrize(
    "action",
    [
        {},
        {"action": "erase"},
        {"action": "click", "x": "0.5", "y": 0.5},
        {"action": "click", "x": math.nan, "y": 0.5},
        {"action": "click", "x": True, "y": 0.5},
        {"action": "click", "y": 0.5},
        {"action": "box", "left": 0.1, "top": None, "right": 0.5, "bottom": 0.5},
        {"action": "activate", "index": 3},
        {"action": "activate", "index": -1},
        {"action": "remove", "index": "0"},
    ],
)
def test_what_the_page_would_never_send_is_refused_and_changes_nothing(marking: Marking, action: dict) -> None:
    marking.apply(click(0.2, 0.5))
    before = marking.masks[0].copy()
    with pytest.raises(UserError):
        marking.apply(action)
    assert (marking.masks[0] == before).all() and len(marking.objects) == 1


def test_a_mark_that_the_segmenter_refuses_is_taken_back() -> None:
    def refusing(image: np.ndarray, prompt) -> np.ndarray:
        raise UserError("The box is too small.")

    marking = Marking(np.zeros((50, 50, 3), dtype=np.uint8), refusing)
    with pytest.raises(UserError, match="too small"):
        marking.apply(BOX)
    assert marking.objects[0].history == []


def test_taking_away_needs_something_to_take_from(marking: Marking) -> None:
    with pytest.raises(UserError, match="Click on the object first"):
        marking.apply(click(0.5, 0.5, inside=False))


def test_view_and_overlay_show_the_marks(marking: Marking) -> None:
    assert marking.overlay() is None
    marking.apply(click(0.25, 0.5))
    marking.apply({"action": "add"})
    first, second = marking.view()["objects"]
    assert first["clicks"] == [[0.25, 0.5, True]] and first["marked"] and not first["active"]
    assert second["active"] and not second["marked"] and first["color"] != second["color"]
    overlay = marking.overlay()
    assert overlay is not None and overlay.size == (200, 100)
    assert overlay.getpixel((50, 50))[:3] == color_of(0) and overlay.getpixel((150, 20))[3] == 0


def test_pictures_in_addresses_are_bounded() -> None:
    assert fitted(4000, 1000, 1280) == (1280, 320) and fitted(10, 20, 1280) == (10, 20)
    assert data_url(Image.new("RGB", (30, 20))).startswith("data:image/jpeg;base64,")
    assert data_url(Image.new("RGBA", (30, 20))).startswith("data:image/png;base64,")
