"""Scores answers that name objects: ScanRefer (one object for a description) and Multi3DRefer (any number of objects).

An object counts as found if its IoU is at least the threshold. Ids of objects that the scene does not have are ignored.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from fastsam3d.errors import UserError
from fastsam3d.mllm.benchmarks.annotations import ZERO_TARGET_TYPES, Prediction
from fastsam3d.mllm.benchmarks.metrics.assignment import best_assignment
from fastsam3d.mllm.benchmarks.metrics.boxes import Box, box_iou
from fastsam3d.mllm.benchmarks.metrics.object_ids import named_objects
from fastsam3d.mllm.benchmarks.references import References

THRESHOLDS = (0.25, 0.5)
Scores = dict[str, float | None]
DEFAULT_OBJECT = 0
"""Object that the published evaluation takes where an answer of ScanRefer names none. It can be right by chance."""


def score_scanrefer(predictions: Sequence[Prediction], references: References) -> Scores:
    """Computes the accuracy of the first object that each answer names (ScanRefer, Chen et al., ECCV 2020).

    Args:
        predictions: answers with their questions.
        references: boxes, and the table of unique objects where it is known.

    Returns:
        `acc@T`, `unique_acc@T` and `multiple_acc@T` for each threshold T, 0..1. The last two are for objects that are
        unique in their scene and for others; None where there are no such questions, or no table.

    Raises:
        UserError: an object is not in the table of unique objects, or not among the true objects.
    """
    hits: dict[str, list[float]] = defaultdict(list)
    for prediction in predictions:
        asked = prediction.annotation
        assert asked.object_id is not None
        found = named_objects(prediction.text, _objects(references, asked.scene))
        overlap = references.overlap(asked.scene, (found or [DEFAULT_OBJECT])[0], asked.object_id)
        groups = ["acc"]
        if references.unique is not None:
            is_unique = references.unique.get(asked.scene, {}).get(asked.object_id)
            if is_unique is None:
                raise UserError(
                    f"object {asked.object_id} of {asked.scene} is not in the table of unique objects: give the table "
                    "of the same annotations, or leave it out."
                )
            groups.append("unique_acc" if is_unique else "multiple_acc")
        for group in groups:
            hits[group].append(overlap)
    return {
        f"{group}@{threshold}": mean([float(overlap >= threshold) for overlap in hits[group]])
        for group in ("acc", "unique_acc", "multiple_acc")
        for threshold in THRESHOLDS
    }


def score_multi3drefer(predictions: Sequence[Prediction], references: References) -> Scores:
    """Computes the F1 of the objects that each answer names, averaged over the questions (Zhang et al., ICCV 2023).

    Args:
        predictions: answers with their questions.
        references: boxes.

    Returns:
        `f1@T` for each threshold T, 0..1, and `TYPE_f1@T` for each type of question that occurs, such as `mt_f1@0.5`.

    Raises:
        UserError: an object is not among the true objects.
    """
    scores: dict[str, list[float]] = defaultdict(list)
    for prediction in predictions:
        asked = prediction.annotation
        named = named_objects(prediction.text, _objects(references, asked.scene))
        boxes = [box for box in (references.segmented_box(asked.scene, number) for number in named) if box is not None]
        for threshold in THRESHOLDS:
            if asked.kind in ZERO_TARGET_TYPES:
                f1 = float(not named)
            else:
                targets = [references.true_box(asked.scene, number) for number in asked.references]
                f1 = f1_of_boxes(boxes, targets, threshold)
            for group in ("f1", f"{asked.kind}_f1"):
                scores[f"{group}@{threshold}"].append(f1)
    return {name: mean(values) for name, values in scores.items()}


def f1_of_boxes(boxes: Sequence[Box], targets: Sequence[Box], threshold: float) -> float:
    """Computes the F1 of two sets of boxes, 0..1; 1 for two empty sets.

    Boxes are paired so that the sum of the IoU of all pairs is largest. A pair is right if its IoU is at least the
    threshold. The pairing does not depend on the threshold, so another one might have more right pairs. The published
    metric is the same.
    """
    if not boxes and not targets:
        return 1.0
    size = max(len(boxes), len(targets))
    overlaps = [[0.0] * size for _ in range(size)]
    for row, box in enumerate(boxes):
        for column, target in enumerate(targets):
            overlaps[row][column] = box_iou(box, target)
    paired = best_assignment(overlaps)
    right = sum(overlaps[row][column] >= threshold for row, column in enumerate(paired))
    return 2 * right / (len(boxes) + len(targets))


def mean(values: Sequence[float]) -> float | None:
    """The mean; None without values."""
    return sum(values) / len(values) if values else None


def _objects(references: References, scene: str) -> int:
    return len((references.segmented or {})[scene])
