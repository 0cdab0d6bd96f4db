"""Answers the questions of an annotation file, ready to be scored."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from fastsam3d.errors import UserError
from fastsam3d.mllm.benchmarks.annotations import Annotation, Prediction
from fastsam3d.mllm.benchmarks.scene_objects import SceneObjects
from fastsam3d.mllm.chat_scene.features import FeatureFiles, Scene
from fastsam3d.mllm.chat_scene.model import ChatScene
from fastsam3d.mllm.chat_scene.prompts import object_order

Objects = Mapping[str, SceneObjects]
"""Segmented objects by scene."""


def answer_questions(
    model: ChatScene,
    annotations: Sequence[Annotation],
    features: FeatureFiles,
    objects: Objects | None = None,
    *,
    batch: int = 1,
    seed: int | None = None,
    skip_missing_scenes: bool = False,
    **generation: Any,
) -> list[Prediction]:
    """Answers questions, in their order.

    Args:
        model: plain or accelerated.
        annotations: from `read_annotations`.
        features: from `read_features`.
        objects: segmented objects by scene, from `read_attributes`. They say which objects are present, and give boxes
            to the predictor of an acceleration. None: objects with features are present, and there are no boxes.
        batch: number of questions that are answered together.
        seed: of a random order of the objects, another one for each question; None: their own order.
        skip_missing_scenes: leave out questions about scenes without features, with a warning; False: an error.
        generation: changes to `generation.GENERATION`.

    Raises:
        UserError: a scene has no features, or a question does not fit the model.
    """
    numbers = places_with_scenes(annotations, features, objects, skip_missing_scenes)
    answered = answer_in_turn(
        model, annotations, features, objects, numbers=numbers, batch=batch, seed=seed, **generation
    )
    return [prediction for part in answered for _, prediction in part]


def answer_in_turn(
    model: ChatScene,
    annotations: Sequence[Annotation],
    features: FeatureFiles,
    objects: Objects | None = None,
    *,
    numbers: Sequence[int],
    batch: int = 1,
    seed: int | None = None,
    scores: Callable[[int], Tensor] | None = None,
    **generation: Any,
) -> Iterator[list[tuple[int, Prediction]]]:
    """Answers some of the questions, and yields each batch as soon as it is answered.

    Args:
        model, annotations, features, objects, batch, seed, generation: as for `answer_questions`.
        numbers: places of the questions in the list.
        scores: scores of the objects of a question, (objects,), by its place in the list; the technique `external`
            reads them. None: scorers get the boxes of the objects instead, if `objects` is given.

    Returns:
        For each batch, the place and the answer of each of its questions.

    Raises:
        UserError: as for `answer_questions`.
    """
    known: dict[str, Scene] = {}
    for start in range(0, len(numbers), max(batch, 1)):
        part = numbers[start : start + max(batch, 1)]
        asked = [annotations[number] for number in part]
        # Questions about one scene mostly follow one another: a scene is kept while they do.
        known = {one.scene: known.get(one.scene) or scene_of(features, one.scene, objects) for one in asked}
        scenes = [known[one.scene] for one in asked]
        orders = [object_order(model.objects, seed, number) for number in part]
        groups = [model.groups(scene, order) for scene, order in zip(scenes, orders, strict=True)]
        given: list[Any] | None = None
        if scores is not None:
            given = [_of_groups(scores(number), of_one) for number, of_one in zip(part, groups, strict=True)]
        elif objects is not None:
            boxes = [objects[one.scene].padded_boxes(model.objects) for one in asked]
            given = [{"boxes": of_scene[of_one]} for of_scene, of_one in zip(boxes, groups, strict=True)]
        texts = model.answer_all(scenes, [one.prompt for one in asked], orders=orders, objects=given, **generation)
        predictions = map(Prediction, asked, texts)
        yield list(zip(part, predictions, strict=True))


def places_with_scenes(
    annotations: Sequence[Annotation], features: FeatureFiles, objects: Objects | None, skip_missing: bool
) -> list[int]:
    """Places of the questions about scenes with features, and with objects if those are given.

    Args:
        skip_missing: leave out other questions, with a warning; False: they are an error.

    Raises:
        UserError: a scene has no features or no objects.
    """

    def is_known(scene: str) -> bool:
        return scene in features and (objects is None or scene in objects)

    missing = [asked.scene for asked in annotations if not is_known(asked.scene)]
    if missing:
        lacking = "features" if missing[0] not in features else "an entry of the attribute file"
        text = f"{len(missing)} of {len(annotations)} questions are about scenes without {lacking}, such as"
        if not skip_missing:
            raise UserError(f"{text} {missing[0]}: give the files of the same split, or skip_missing_scenes=True.")
        warnings.warn(f"{text} {missing[0]}; they are left out.", stacklevel=3)
    return [number for number, asked in enumerate(annotations) if is_known(asked.scene)]


def scene_of(features: FeatureFiles, name: str, objects: Objects | None) -> Scene:
    """Features of one scene. The attribute file, if given, says which of its objects are present.

    Raises:
        UserError: the feature files or the attribute file do not have the scene.
    """
    if objects is not None and name not in objects:
        raise UserError(f"the attribute file has no {name}: give that of the same split, or leave it out.")
    return features.scene(name, None if objects is None else objects[name])


def _of_groups(scores: Tensor, groups: Sequence[int]) -> Tensor:
    if len(scores) <= max(groups, default=-1):
        raise UserError(
            f"a question has {len(scores)} scores, and its scene has objects up to number {max(groups)}: make the maps "
            "again for this model"
        )
    return scores[list(groups)]
