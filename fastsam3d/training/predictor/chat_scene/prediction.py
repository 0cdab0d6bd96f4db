"""Predicted attention maps of the questions of Chat-Scene, for an evaluation with them and the search of alpha."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastsam3d.errors import UserError
from fastsam3d.evaluation.language_models.chat_scene.loading import NEEDED, load_data, require
from fastsam3d.evaluation.language_models.chat_scene.run import Progress
from fastsam3d.mllm.budgets import LOGITS
from fastsam3d.mllm.chat_scene.question_data import Question
from fastsam3d.mllm.predictor.files import load_predictor, notes_of
from fastsam3d.mllm.predictor.network import UNUSED
from fastsam3d.mllm.predictor.stored_maps import StoredMaps
from fastsam3d.training.predictor.chat_scene.batches import inputs_of, load_embeddings
from fastsam3d.training.predictor.chat_scene.filling import begin, fill
from fastsam3d.training.predictor.chat_scene.options import PredictionOptions
from fastsam3d.training.predictor.chat_scene.training import LANGUAGE_MODEL

COMMAND = "mllm predict"


def predict(options: PredictionOptions, progress: Progress = lambda what, done, total: None) -> StoredMaps:
    """Writes the logits of a predictor for all questions; the layers of the language model are not run.

    Args:
        options: of the run.
        progress: told how far it is.

    Raises:
        UserError: an option is missing or impossible, a file cannot be read, the predictor was trained for another
            language model, or the output holds other maps.
    """
    require(options, COMMAND, (*NEEDED, "predictor"))
    assert options.predictor is not None
    predictor = load_predictor(options.predictor)
    data = load_data(options, options.benchmark, options.split)
    questions = data.questions(options.skip_missing_scenes, options.questions)
    progress("loading the model", 0, 1)
    model, identity = load_embeddings(options)
    trained_for = notes_of(options.predictor).get(LANGUAGE_MODEL, identity)
    if trained_for != identity:
        raise UserError(
            f"the predictor {options.predictor} was trained for {trained_for!r}, and this model is {identity!r}: give "
            "the predictor of this model"
        )
    predictor = predictor.to(options.device)
    maps = begin(options.output, options.resume, LOGITS, predictor.config.rows, identity, data)

    @torch.no_grad()
    def compute(part: Sequence[Question]) -> tuple[Tensor, Tensor]:
        batch = inputs_of(model, data, part, predictor.config.boxes != UNUSED)
        return predictor(batch).cpu(), batch.present.cpu()

    fill(maps, questions, options.batch, compute, options.output, progress, "predicting attention maps")
    return maps
