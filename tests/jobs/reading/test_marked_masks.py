"""Masks of marks: with a segmenter that answers by hand, and on shapes of plain colours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fastsam3d.errors import UserError
from fastsam3d.jobs.masks import doubts
from fastsam3d.jobs.pictures import Picture
from fastsam3d.jobs.reading.marked_masks import mark_doubts, marked_mask, marked_masks
from fastsam3d.jobs.reading.marks import Marks
from fastsam3d.marking.learned import Marker
from fastsam3d.marking.segmentation import Prompt

SHAPE = (60, 80)


def block(left: int, top: int, right: int, bottom: int) -> np.ndarray:
    mask = np.zeros(SHAPE, dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


def picture() -> Picture:
    pixels = np.full((*SHAPE, 3), 180, dtype=np.uint8)
    pixels[block(10, 10, 30, 40)] = (200, 30, 30)
    pixels[block(50, 20, 70, 50)] = (20, 60, 200)
    return Picture(Path("photo.png"), pixels, None)


def test_the_segmenter_gets_the_marks_and_the_mask_knows_them() -> None:
    asked = []

    def answer(image: np.ndarray, prompt: Prompt) -> np.ndarray:
        asked.append(prompt)
        return block(10, 10, 30, 40)

    marks = Marks(((8, 8, 32, 42),), ((20, 20, True), (50, 50, False)))
    mask = marked_mask(marks, picture(), load=lambda: Marker(answer))
    assert asked == [Prompt(((20, 20, True), (50, 50, False)), (8, 8, 32, 42))]
    assert mask.pixels.sum() == 600 and mask.label == "marked" and mask.file is None and doubts(mask) == []
    assert mask.marks == {"box": [8, 8, 32, 42], "points": [[20, 20, "object"], [50, 50, "background"]]}


@pytest.mark.parametrize(
    ("mask", "box", "message"),
    [
        (block(10, 10, 30, 30), (10.0, 10.0, 30.0, 30.0), "fills the box 10,10,30,30 entirely"),
        (block(10, 10, 14, 14), (10.0, 10.0, 60.0, 50.0), "almost empty: 16 pixels, 0.8% of the box"),
        (block(0, 0, 80, 58), None, "covers 97% of the picture"),
        (block(0, 0, 8, 8), None, "almost empty: 64 pixels"),
        (block(0, 0, 9, 9), None, None),
        (block(10, 10, 30, 30), (8.0, 8.0, 32.0, 32.0), None),
    ],
)
def test_doubtful_masks_are_told_of(mask, box, message) -> None:
    told = mark_doubts(mask, box)
    assert len(told) == (message is not None) and all(message in text for text in told)


def test_where_nothing_is_found_the_way_out_is_said() -> None:
    with pytest.raises(UserError, match="no object was found by the marks"):
        marked_mask(Marks(((8, 8, 32, 42),)), picture(), load=lambda: Marker(lambda image, prompt: block(0, 0, 0, 0)))


def test_of_several_objects_one_without_a_mask_stops_no_other() -> None:
    def answer(image: np.ndarray, prompt: Prompt) -> np.ndarray:
        return block(10, 10, 30, 40) if prompt.box is not None else block(0, 0, 0, 0)

    first, second = marked_masks(Marks(((8, 8, 32, 42),), ((60, 30, True),)), picture(), load=lambda: Marker(answer))
    assert first.problem is None and first.label == "0"
    assert second.problem is not None and "no object was found" in second.problem and second.label == "1"
    with pytest.raises(UserError, match="no object was found"):
        marked_masks(Marks((), ((60, 30, True),)), picture(), load=lambda: Marker(answer))


def test_boxes_and_points_find_plain_shapes() -> None:
    pytest.importorskip("cv2", reason="marking needs OpenCV (extra demo)")
    boxes = Marks(((6, 6, 34, 44), (46, 16, 74, 54)))
    for mask, truth in zip(marked_masks(boxes, picture()), (block(10, 10, 30, 40), block(50, 20, 70, 50)), strict=True):
        assert (mask.pixels & truth).sum() / (mask.pixels | truth).sum() > 0.95 and mask.notes == ()


def test_objects_on_a_plain_backdrop_are_proposed_the_largest_first() -> None:
    pytest.importorskip("cv2", reason="marking needs OpenCV (extra demo)")
    photo = picture()
    photo.pixels[block(50, 46, 70, 50)] = 180  # the second is 520 pixels, the first 600
    first, second = marked_masks(Marks(propose=True), photo)
    for mask, truth in ((first, block(10, 10, 30, 40)), (second, block(50, 20, 70, 46))):
        assert (mask.pixels & truth).sum() / (mask.pixels | truth).sum() > 0.9
        assert mask.marks == {"proposed": True}
    one = marked_mask(Marks(propose=True), photo, index=1)
    assert (one.pixels == second.pixels).all() and "found 2 objects; this is number 1" in one.notes[0]
    with pytest.raises(UserError, match="--mask_index can be 0, 1"):
        marked_mask(Marks(propose=True), photo, index=2)


def test_where_nothing_stands_out_marks_are_asked_for() -> None:
    pytest.importorskip("cv2", reason="marking needs OpenCV (extra demo)")
    plain = Picture(Path("wall.png"), np.full((40, 40, 3), 90, dtype=np.uint8), None)
    clutter = Picture(Path("leaves.png"), np.random.default_rng(0).integers(0, 255, (60, 60, 3), np.uint8), None)
    for photo in (plain, clutter):
        with pytest.raises(UserError, match="--all found no object in"):
            marked_masks(Marks(propose=True), photo)
