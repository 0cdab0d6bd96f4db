"""Answers all questions of an annotation file, ready to be scored."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from fastsam3d.errors import UserError
from fastsam3d.mllm.benchmarks.annotations import Annotation, Prediction
from fastsam3d.mllm.benchmarks.scene_objects import SceneObjects
from fastsam3d.mllm.chat_scene.features import FeatureFiles, Scene
from fastsam3d.mllm.chat_scene.model import ChatScene
from fastsam3d.mllm.chat_scene.prompts import object_order


def answer_questions(
    model: ChatScene,
    annotations: Sequence[Annotation],
    features: FeatureFiles,
    objects: Mapping[str, SceneObjects] | None = None,
    *,
    batch: int = 1,
    seed: int | None = None,
    skip_missing_scenes: bool = False,
    **generation: Any,
) -> list[Prediction]:
    """Answers questions in their order.

    Args:
        model: plain or accelerated.
        annotations: from `read_annotations`.
        features: from `read_features`.
        objects: of the attribute file of segmented objects, which tells which of them are there; None: those that have
            features.
        batch: questions at a time.
        seed: of the random order of the objects, another one for each question; None: their own order.
        skip_missing_scenes: leave out questions about scenes without features, with a warning; otherwise an error.
        generation: changes of `generation.GENERATION`.

    Raises:
        UserError: a scene has no features, or a question does not fit the model.
    """
    numbered = [(number, asked) for number, asked in enumerate(annotations) if asked.scene in features]
    missing = [asked.scene for asked in annotations if asked.scene not in features]
    if missing:
        text = f"{len(missing)} of {len(annotations)} questions are about scenes without features, such as {missing[0]}"
        if not skip_missing_scenes:
            raise UserError(f"{text}: give the feature files of the same split, or skip_missing_scenes=True.")
        warnings.warn(f"{text}; they are left out.", stacklevel=2)
    predictions: list[Prediction] = []
    known: dict[str, Scene] = {}
    for start in range(0, len(numbered), max(batch, 1)):
        part = numbered[start : start + max(batch, 1)]
        names = {asked.scene for _, asked in part}
        # Questions about one scene mostly follow one another: a scene is kept while they do.
        known = {name: known.get(name) or _scene(features, name, objects) for name in names}
        texts = model.answer_all(
            [known[asked.scene] for _, asked in part],
            [asked.prompt for _, asked in part],
            orders=[object_order(model.objects, seed, number) for number, _ in part],
            **generation,
        )
        predictions += [Prediction(asked, text) for (_, asked), text in zip(part, texts, strict=True)]
    return predictions


def _scene(features: FeatureFiles, name: str, objects: Mapping[str, SceneObjects] | None) -> Scene:
    if objects is not None and name not in objects:
        raise UserError(f"the attribute file has no {name}: give that of the same split, or leave it out.")
    return features.scene(name, None if objects is None else objects[name])
