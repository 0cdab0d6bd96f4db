"""Clicks on procedural scenes whose masks are known, and the backdrop that they rest on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

cv2 = pytest.importorskip("cv2", reason="marking by clicks needs OpenCV (extra demo)")

from fastsam3d.cli.commands.evaluation.marking_quality import main  # noqa: E402
from fastsam3d.errors import UserError  # noqa: E402
from fastsam3d.evaluation.marking.quality import (  # noqa: E402
    after_box_line,
    marked_scenes,
    measure,
    measure_after_box,
    measure_proposals,
    next_click,
    object_rows,
    overlap,
    proposal_line,
    setbacks,
)
from fastsam3d.evaluation.photographs.photographs import Missing, Photograph  # noqa: E402
from fastsam3d.jobs.masks import all_masks  # noqa: E402
from fastsam3d.jobs.pictures import example_directory, picture_in  # noqa: E402
from fastsam3d.marking.backdrop import departure, standing_out, things  # noqa: E402
from fastsam3d.marking.proposals import propose  # noqa: E402
from fastsam3d.marking.segmentation import Prompt, segment  # noqa: E402


def floor_with_shadow() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A floor that fades, an object of two colours on it, and the object's shadow, as dark as half the light."""
    rows, columns = np.mgrid[:120, :160]
    image = np.array([150.0, 140, 120]) * (0.7 + 0.5 * rows / 120)[..., None]
    thing = (abs(columns - 70) < 22) & (abs(rows - 60) < 30)
    shadow = (abs(columns - 110) < 18) & (abs(rows - 80) < 10)
    image[shadow] *= 0.5
    image[thing] = [170, 40, 40]
    image[thing & (rows > 60)] = [30, 60, 160]
    noise = np.random.default_rng(0).normal(0, 2, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8), thing, shadow


def test_one_click_on_one_part_takes_the_whole_object_and_not_its_shadow() -> None:
    image, thing, shadow = floor_with_shadow()
    off = departure(cv2, image)
    assert (off[thing] > 1).mean() > 0.97 and (off[~thing] > 1).mean() < 0.06
    found = standing_out(cv2, image, [(70, 45, True)], 2)
    assert found is not None and (found & thing).sum() > 0.97 * thing.sum() and (found & shadow).mean() < 0.01


def test_things_that_touch_are_two_and_parts_that_meet_broadly_are_one() -> None:
    """Two squares of two halves each, which touch along 6 of their 30 pixels; nothing else stands out."""
    stands_out, costs = np.zeros((60, 90), dtype=bool), np.full((60, 90), 0.1)
    stands_out[5:35, 10:40] = stands_out[29:59, 40:70] = True
    costs[:, 24:26] = costs[:, 39:41] = costs[43:45, 40:] = 5.0  # inside the first, between both, inside the second
    numbers = things(cv2, stands_out, costs)
    assert (numbers[~stands_out] == 0).all()
    first, second = np.unique(numbers[5:35, 10:40]), np.unique(numbers[29:59, 40:70])
    assert len(first) == len(second) == 1 and first != second and first > 0 and second > 0


def test_a_click_that_takes_away_reaches_as_far_as_it_lies_inside() -> None:
    """Near the outline it corrects the outline; in the middle of the lower part it removes that part alone."""
    image, thing, _ = floor_with_shadow()
    lower = thing & (np.mgrid[:120, :160][0] > 62)
    near_outline = standing_out(cv2, image, [(70, 45, True), (50, 80, False)], 2)
    assert near_outline is not None and not near_outline[80, 50] and (near_outline & thing).sum() > 0.85 * thing.sum()
    middle = standing_out(cv2, image, [(70, 45, True), (70, 76, False)], 2)
    assert middle is not None and (middle & lower).sum() < 0.05 * lower.sum()
    assert (middle & thing & ~lower).sum() > 0.9 * (thing & ~lower).sum()


def test_a_click_that_adds_reaches_as_far_as_it_lies_outside() -> None:
    """Beside the outline on the floor: no more of the floor than about the click."""
    image, thing, _ = floor_with_shadow()
    found = standing_out(cv2, image, [(70, 45, True), (47, 60, True)], 2)
    assert found is not None and found[60, 47] and (found & ~thing).sum() < 400
    assert not found[:, :34].any()  # without that limit 519 pixels, and farther out


def test_without_a_smooth_backdrop_or_with_a_click_on_it_nothing_is_said() -> None:
    clutter = cv2.resize(np.random.default_rng(1).integers(0, 255, (12, 16, 3), dtype=np.uint8), (160, 120))
    assert standing_out(cv2, clutter, [(70, 45, True)], 2) is None
    image, *_ = floor_with_shadow()
    assert standing_out(cv2, image, [(10, 10, True)], 2) is None
    plain = np.full((8, 8, 3), 90, dtype=np.uint8)
    assert standing_out(cv2, plain, [(4, 4, True)], 2) is None


def test_the_simulated_person_clicks_into_the_largest_error() -> None:
    truth = np.zeros((40, 60), dtype=bool)
    truth[10:31, 10:31] = True
    assert next_click(np.zeros_like(truth), truth) == (20.5, 20.5, True)
    too_much = truth.copy()
    too_much[2:7, 40:59] = True
    click = next_click(too_much, truth)
    assert click is not None and not click[2] and too_much[int(click[1]), int(click[0])]
    assert next_click(truth, truth) is None


def test_one_click_finds_each_object_of_the_examples() -> None:
    """The floor lies below what is measured, 0.9; it leaves room for other versions of OpenCV."""
    found = []
    for name in ("chair", "car", "toys"):
        picture = picture_in(example_directory(name))
        for mask in all_masks(picture):
            click = next_click(np.zeros_like(mask.pixels), mask.pixels)
            assert click is not None
            found.append(overlap(segment(picture.pixels, Prompt((click,))), mask.pixels))
    assert np.mean(found) > 0.8 and min(found) > 0.5, found


@pytest.mark.slow
def test_clicks_find_objects_in_scenes_with_known_masks() -> None:
    """The floor lies below what is measured (module docstring); it leaves room for other versions of OpenCV."""
    found, _ = measure(segment, marked_scenes(0, 4))
    assert found.shape == (10, 6)
    one, two, *_, box = found.mean(axis=0)
    assert one > 0.75 and two > 0.75 and box > 0.8


def test_the_measurement_takes_any_pictures_and_gives_a_line_for_each_object(capsys: pytest.CaptureFixture) -> None:
    """A segmenter that always answers with the left half, of which the object is one half: IoU 0.5."""
    truth = np.zeros((40, 60), dtype=bool)
    truth[:20, :30] = True
    left = np.zeros_like(truth)
    left[:, :30] = True
    found, _ = measure(lambda image, prompt: left, [(np.zeros((40, 60, 3), np.uint8), truth)])
    np.testing.assert_allclose(found, 0.5)
    assert object_rows(["cup"], found).split()[-7:] == ["cup", *6 * ["0.50"]]


def test_a_click_after_a_box_is_measured() -> None:
    """A box alone gives its left half, IoU 0.5; a click in what is missing, all of the object, or the upper quarter."""
    truth = np.zeros((64, 64), dtype=bool)
    truth[20:40, 20:40] = True
    left, quarter = truth.copy(), truth.copy()
    left[:, 30:], quarter[25:] = False, False
    image = np.zeros((64, 64, 3), dtype=np.uint8)
    asked = []

    def better(picture: np.ndarray, prompt: Prompt) -> np.ndarray:
        asked.append(prompt)
        return truth if prompt.clicks else left

    worse = measure_after_box(lambda image, prompt: quarter if prompt.clicks else left, [(image, truth)])
    np.testing.assert_allclose(measure_after_box(better, [(image, truth)]), [[0.5, 1.0]])
    assert [prompt.box for prompt in asked] == 2 * [(17.0, 17.0, 43.0, 43.0)]
    (x, y, inside) = asked[1].clicks[0]
    assert inside and 30 < x < 40 and 20 < y < 40
    np.testing.assert_allclose(worse, [[0.5, 0.25]])
    assert after_box_line(worse).endswith("mean IoU 0.500 before and 0.250 after the click, smaller: 100%\n")
    # A mask that is right gets no click.
    np.testing.assert_allclose(measure_after_box(lambda image, prompt: truth, [(image, truth)]), [[1.0, 1.0]])


def test_clicks_that_make_it_worse_are_counted() -> None:
    """Of eight further clicks two take more than 0.05 away; the box does not count."""
    rows = np.array([[0.5, 0.6, 0.54, 0.8, 0.78, 0.1], [0.9, 0.9, 0.9, 0.2, 0.3, 0.9]])
    assert setbacks(rows) == pytest.approx(2 / 8)


def test_proposals_are_measured_by_the_best_of_each_picture() -> None:
    """Two objects of one picture, of which one stands out from the floor and the other is a part of it."""
    image, thing, _ = floor_with_shadow()
    part = np.zeros_like(thing)
    part[2:8, 2:8] = True
    best, count = measure_proposals([(image, thing), (image, part)])
    assert best[0] > 0.9 and best[1] == 0 and count == len(propose(image))
    assert proposal_line(best, count).split()[:4] == ["--all", "mean", "IoU", f"{best.mean():.3f},"]


def test_photographs_that_are_not_here_are_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from fastsam3d.evaluation.photographs import photographs

    monkeypatch.setattr(photographs, "_locate", _not_here)
    with pytest.raises(UserError, match="none of the photographs is here"):
        main([f"photographs={tmp_path}"])


def _not_here(photograph: Photograph, folder: str | None) -> Path:
    raise Missing(f"{photograph.package} is not installed")


def test_settings_of_the_measurement_are_checked() -> None:
    with pytest.raises(UserError, match="Did you mean scenes"):
        main(["scene=3"])
    with pytest.raises(UserError, match="scenes=0 leaves nothing to measure"):
        main(["scenes=0"])
    with pytest.raises(UserError, match="choose from learned, network, plain"):
        main(["marker=sam"])
