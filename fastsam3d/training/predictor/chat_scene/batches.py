"""Inputs of a predictor for questions of Chat-Scene, and training batches from stored maps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fastsam3d.errors import UserError
from fastsam3d.evaluation.language_models.chat_scene.loading import load_model
from fastsam3d.evaluation.language_models.chat_scene.options import ChatSceneOptions
from fastsam3d.mllm.budgets import MASS
from fastsam3d.mllm.chat_scene import ChatScene, FeatureFiles, QuestionData, read_question_data
from fastsam3d.mllm.chat_scene.question_data import Question
from fastsam3d.mllm.predictor.batch import PredictorBatch, predictor_batch
from fastsam3d.mllm.predictor.question_sets import first_number
from fastsam3d.mllm.predictor.stored_maps import StoredMaps, load_maps
from fastsam3d.mllm.spans import layout_of, live_tokens, spans_of_samples
from fastsam3d.training.predictor.training import Batches


def load_embeddings(options: ChatSceneOptions) -> tuple[ChatScene, str]:
    """The language model without its layers, which a predictor does not read, and its identity.

    Raises:
        UserError: a file is missing, or the two do not belong together.
    """
    model = load_model(options, "cpu")
    identity = model.identity()
    model.language_model.model.layers = nn.ModuleList()
    return model.to(options.device), identity


@torch.no_grad()
def inputs_of(
    model: ChatScene, data: QuestionData, questions: Sequence[Question], with_boxes: bool = True
) -> PredictorBatch:
    """What a predictor reads of some questions: the same as when it works within the language model."""
    asked = [question.annotation for question in questions]
    inputs = model.inputs([data.scene(one.scene) for one in asked], [one.prompt for one in asked])
    samples, columns = inputs.attention_mask.shape
    live = live_tokens(inputs.attention_mask, samples, columns, inputs.inputs_embeds.device)
    layout = layout_of(spans_of_samples(inputs.visual, samples), live)
    boxes = None
    if with_boxes:
        boxes = torch.stack([data.boxes(one.scene, model.objects) for one in asked]).to(live.device)
    return predictor_batch(layout, inputs.inputs_embeds, boxes)


def maps_with_questions(
    path: str, model: str, options: ChatSceneOptions, attributes: str | None, features: FeatureFiles | None = None
) -> tuple[StoredMaps, QuestionData]:
    """Stored shares of attention, and the questions that they say they are of.

    Args:
        path: of the maps.
        model: identity of the language model.
        options: that name the annotation folder and the feature files.
        attributes: file of segmented objects; None: that of the annotation folder.
        features: that were read before; None: they are read now.

    Raises:
        UserError: a file is missing, or the maps are of another model, kind or annotation file.
    """
    maps = load_maps(path, model, MASS)
    parts = [one.name.rpartition("_") for one in maps.sets]
    splits = sorted({split for _, _, split in parts})
    if len(splits) != 1:
        what = f"of the splits {', '.join(splits)}" if splits else "and it does not say of which questions"
        raise UserError(f"{path} holds maps {what}: give maps of one split, made by mllm extract")
    assert options.annotations is not None
    names = [name for name, _, _ in parts]
    data = read_question_data(options.annotations, names, splits[0], features or options.features, attributes)
    for one in data.sets.values():
        first_number(maps.sets, one)
    return maps, data


def batches_of_maps(
    model: ChatScene, data: QuestionData, maps: StoredMaps, size: int, with_boxes: bool = True
) -> Batches:
    """Makes a source of training batches from stored maps: each question once in an epoch, in a random order.

    Args:
        model: whose embeddings are read.
        data: questions that the maps are of.
        maps: shares of attention.
        size: questions of a batch.
        with_boxes: whether the predictor reads boxes.

    Returns:
        `(seed, step) -> ` inputs of the predictor, and the map of each question (B, N).

    Raises:
        UserError: no question has a map, or a question with a map has no scene.
    """
    questions = [question for question in _all(data) if question.number in maps.maps]
    if not questions:
        raise UserError("there are no maps of these questions: make them with mllm extract")
    scenes = [question.annotation.scene for question in questions]
    unknown = [scene for scene in scenes if scene not in data.features or scene not in data.objects]
    if unknown:
        raise UserError(
            f"{len(unknown)} questions with maps are about scenes without features or boxes, such as {unknown[0]}: "
            "give the files that the maps were made with"
        )
    size = min(size, len(questions))
    a_round = len(questions) // size

    def source(seed: int, step: int) -> tuple[PredictorBatch, Tensor]:
        epoch, place = divmod(step, a_round)
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        order = torch.randperm(len(questions), generator=generator)[place * size : (place + 1) * size]
        chosen = [questions[number] for number in order.tolist()]
        target = torch.stack([maps.maps[question.number] for question in chosen])
        return inputs_of(model, data, chosen, with_boxes), target

    return source


def _all(data: QuestionData) -> list[Question]:
    """All questions, whether their scenes are known or not."""
    found: list[Question] = []
    for name, of_one in data.annotations.items():
        found += [Question(len(found) + place, name, asked) for place, asked in enumerate(of_one)]
    return found
