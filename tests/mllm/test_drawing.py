"""Pictures of rooms: colours at places worked out by hand, and numbers that smaller objects do not hide."""

from __future__ import annotations

import numpy as np
import pytest

from fastsam3d.mllm.scenes.drawing import EDGE, FLOOR, FRAME, PAPER, WIDTH, Drawing, draw_room
from fastsam3d.mllm.scenes.files import room_of
from fastsam3d.mllm.scenes.labels import place_labels
from fastsam3d.mllm.scenes.rooms import make_room
from fastsam3d.mllm.scenes.vocabulary import COLOURS

ROOM = room_of(
    {
        "width": 4,
        "depth": 2,
        "objects": [
            {"class": "bed", "colour": "blue", "box": [-1, 0, 0.3, 1, 1, 0.6]},
            {"class": "bed", "colour": "red", "box": [1, 0, 0.3, 1, 1, 0.6]},
        ],
    }
)


def colour_at(picture, x: float, y: float) -> np.ndarray:
    """The colour at a place of the room, in metres: 1100 pixels less two margins of 24 are 4 m, that is 263 a metre.

    Without a title the plan begins 12 pixels below the upper edge, and the floor 12 pixels below that.
    """
    return np.array(picture.getpixel((round(24 + 263 * (x + 2)), round(24 + 263 * (1 - y)))), int)


def close(first, second) -> bool:
    return bool(np.abs(np.array(first) - np.array(second)).max() <= 6)


def test_what_stayed_is_bright_and_what_left_is_pale():
    picture = draw_room(ROOM, Drawing(kept=np.array([True, False])))
    assert picture.width == WIDTH and picture.mode == "RGB"
    assert close(colour_at(picture, -1.3, 0.3), COLOURS["blue"])
    # A fifth of red (205, 60, 55), four fifths of the floor (216, 218, 222).
    assert close(colour_at(picture, 1.3, 0.3), (213.8, 186.4, 188.6))
    assert close(colour_at(picture, 0, 0), FLOOR) and close(colour_at(picture, 1.5, 0.2), EDGE)
    assert close(picture.getpixel((3, 3)), PAPER)
    plain = draw_room(ROOM)
    assert close(colour_at(plain, 1.3, 0.3), COLOURS["red"])
    assert plain.height == picture.height - 40  # no legend where nothing needs one


def test_the_answer_is_framed_and_scores_glow():
    picture = draw_room(ROOM, Drawing(heat=np.array([1.0, 0.01]), framed=[1]))
    # The frame is 2 to 6 pixels outside of the object's edge at 1.5 m; the glow reaches 13 pixels.
    assert close(colour_at(picture, 1.5 + 4 / 263, 0), FRAME)
    assert not close(colour_at(picture, -1.5 - 4 / 263, 0), FRAME)
    red, green, blue = colour_at(picture, -1.5 - 7 / 263, 0)
    assert red > green + 60 and red > blue + 60
    assert close(colour_at(picture, 1.5 + 10 / 263, 0), FLOOR)  # a score near 0 does not glow
    assert close(colour_at(draw_room(ROOM), -1.5 - 7 / 263, 0), FLOOR)


def test_title_and_lines_take_room_above_the_plan():
    lines = [("without pruning", "a long answer " * 20), ("fastv", "yes")]
    text = draw_room(ROOM, Drawing("find the red bed", lines))
    assert text.height > draw_room(ROOM).height + 33 + 3 * 26
    assert (np.asarray(text)[:60].min(axis=2) < 100).any()  # ink


@pytest.mark.parametrize("objects", [1, 30, 100, 128])
def test_rooms_of_all_sizes_are_drawn(objects):
    room = make_room(3, objects)
    heat = np.linspace(0, 1, objects)
    picture = draw_room(room, Drawing("?", [("a", "b")], heat > 0.9, heat, [0, objects - 1]))
    assert picture.width == WIDTH and 600 < picture.height < 1200


def half_as_wide(text: str, height: float) -> float:
    return 0.5 * height * len(text)


def test_numbers_move_away_from_smaller_objects():
    large, small = np.array([[0, 0], [200, 100]]), np.array([[80, 20], [140, 80]])
    on_top = place_labels(np.stack([large, small]), [0, 1], ["12", "7"], ["table", "vase"], half_as_wide)
    assert on_top[1].centre == pytest.approx([110, 50]) and (on_top[1].text, on_top[1].name) == ("7", "vase")
    x, y = on_top[0].centre
    half = half_as_wide("table", 19 * 0.72) / 2  # of the name, which is wider than the number
    assert x + half <= 80 or x - half >= 140
    assert 0 < x - half < x + half < 200 and 0 < y < 100 and not on_top[0].crowded
    covered = place_labels(np.stack([small, small]), [0, 1], ["1", "2"], ["rug", "rug"], half_as_wide)
    assert covered[0].crowded and not covered[1].crowded
