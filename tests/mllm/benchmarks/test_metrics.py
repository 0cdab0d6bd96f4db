"""Metrics of boxes and answers, against values worked out by hand."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from fastsam3d.mllm.benchmarks.grounding import f1_of_boxes
from fastsam3d.mllm.benchmarks.metrics.answers import clean_answer, exact_match, final_answer
from fastsam3d.mllm.benchmarks.metrics.assignment import best_assignment
from fastsam3d.mllm.benchmarks.metrics.boxes import box_iou
from fastsam3d.mllm.benchmarks.metrics.object_ids import named_objects, object_token, rename_objects

A = (0.0, 0.0, 0.0, 2.0, 2.0, 2.0)
B = (5.0, 0.0, 0.0, 2.0, 2.0, 2.0)
C = (0.5, 0.0, 0.0, 2.0, 2.0, 2.0)
D = (1.0, 0.0, 0.0, 2.0, 2.0, 2.0)


@pytest.mark.parametrize(
    ("other", "iou"),
    [
        (A, 1),
        (D, 1 / 3),
        (C, 0.6),
        ((2, 0, 0, 2, 2, 2), 0),
        ((1, 1, 0, 2, 2, 2), 1 / 7),
        ((0.7, 0, 0, 2, 2, 2), 1.3 / 2.7),
        ((9, 9, 9, 2, 2, 2), 0),
        ((0, 0, 0.5, 2, 2, 1), 4 / 8.00000001),
        ((0, 0, 0.75, 2, 2, 0.5), 2 / 8.00000001),
    ],
)
def test_overlap_of_boxes(other, iou):
    assert box_iou(A, other) == pytest.approx(iou, abs=1e-8)
    assert box_iou(other, A) == box_iou(A, other)


def test_the_small_number_decides_exact_ties():
    assert box_iou(A, (0, 0, 0.5, 2, 2, 1)) < 0.5
    assert box_iou(A, (0, 0, 0.75, 2, 2, 0.5)) < 0.25
    assert box_iou((0,) * 6, (0,) * 6) == 0


@pytest.mark.parametrize(
    ("boxes", "targets", "threshold", "f1"),
    [
        ([A], [A], 0.5, 1),
        ([A, B], [A], 0.5, 2 / 3),
        ([A, A], [A], 0.5, 2 / 3),
        ([A], [A, B], 0.5, 2 / 3),
        ([D], [A], 0.25, 1),
        ([D], [A], 0.5, 0),
        ([C, B], [A, B], 0.5, 1),
        ([], [A], 0.5, 0),
        ([A, A], [A, B], 0.5, 0.5),
        ([], [], 0.5, 1),
    ],
)
def test_f1_of_sets_of_boxes(boxes, targets, threshold, f1):
    assert f1_of_boxes(boxes, targets, threshold) == pytest.approx(f1)


def test_assignment_is_the_best_of_all():
    generator = np.random.default_rng(0)
    for size in (1, 2, 3, 4, 5, 6):
        for _ in range(20):
            values = generator.integers(-3, 4, (size, size)).astype(float)  # many ties
            columns = best_assignment(values.tolist())
            assert sorted(columns) == list(range(size))
            most = max(sum(values[row, column] for row, column in enumerate(p)) for p in permutations(range(size)))
            assert sum(values[row, column] for row, column in enumerate(columns)) == most
    assert best_assignment([]) == []
    with pytest.raises(ValueError, match="2 rows"):
        best_assignment([[1.0], [2.0]])


def test_assignment_is_as_good_as_that_of_scipy():
    optimize = pytest.importorskip("scipy.optimize")
    generator = np.random.default_rng(1)
    for size in (2, 17, 60):
        values = generator.random((size, size)) * (generator.random((size, size)) < 0.3)
        rows, columns = optimize.linear_sum_assignment(values, maximize=True)
        own = best_assignment(values.tolist())
        assert values[np.arange(size), own].sum() == pytest.approx(values[rows, columns].sum(), abs=1e-12)


def test_objects_that_a_text_names():
    assert named_objects("<OBJ012> and <OBJ003>, <OBJ012>; <OBJ100>.", 100) == [12, 3, 12]
    assert named_objects("OBJ012 <OBJ12> <obj012> <OBJ0123>", 100) == []
    assert object_token(7) == "<OBJ007>"
    assert rename_objects("<OBJ001> <OBJ002>", {1: 5}.get) == "<OBJ005> "


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("  The Brown   chair", "brown chair"),
        ("2", "two"),
        ("23 chairs", "twenty-three chairs"),
        ("21", "21"),
        ("on the left of the table.", "on left of table"),
        ("tv stand", "TV stand"),
        ("none", "zero"),
        ("no1", "no"),
        ("3 o'clock", "three o'clock"),
        ("o clock", "o clock"),
        ("o' clock", "o'clock"),
        ("an apple, a pear", "apple, pear"),
        ("the", "the"),
        ("a/c unit", "ac unit"),
        ("behine the door", "behind door"),
        ("10-inch", "ten-inch"),
        ("backwards", "backward"),
    ],
)
def test_answers_are_written_in_one_way(text, cleaned):
    assert clean_answer(text) == cleaned


@pytest.mark.parametrize(
    ("answer", "references", "clean_references", "match"),
    [
        ("Brown.", ["brown"], False, (1, 1)),
        ("On the left.", ["left"], False, (0, 1)),
        ("Chair", ["chairs", "seat"], False, (0, 1)),
        ("No.", ["yes"], False, (0, 0)),
        ("", ["x"], False, (0, 0)),
        ("No", ["north wall"], False, (0, 1)),
        ("Black tv", ["tv"], True, (0, 1)),
        ("Black tv", ["tv"], False, (0, 0)),
        ("One", ["none"], True, (0, 0)),
        ("One", ["none"], False, (0, 1)),
    ],
)
def test_exact_and_refined_match(answer, references, clean_references, match):
    targets = [clean_answer(text) for text in references] if clean_references else references
    assert exact_match(final_answer(answer), targets) == match
