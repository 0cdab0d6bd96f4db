"""Attention maps of Chat-Scene on its questions: what a predictor is trained on, and what it is compared with."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from fastsam3d.evaluation.language_models.chat_scene.loading import load_data, load_model, require
from fastsam3d.evaluation.language_models.chat_scene.run import Progress
from fastsam3d.mllm.budgets import MASS
from fastsam3d.mllm.chat_scene import maps_of_questions
from fastsam3d.mllm.chat_scene.maps import answer_text
from fastsam3d.mllm.chat_scene.question_data import Question
from fastsam3d.mllm.predictor.stored_maps import StoredMaps
from fastsam3d.training.predictor.chat_scene.filling import begin, fill
from fastsam3d.training.predictor.chat_scene.options import ExtractionOptions

COMMAND = "mllm extract"


def extract(options: ExtractionOptions, progress: Progress = lambda what, done, total: None) -> StoredMaps:
    """Runs the prompts of all questions in full, and writes what their rows attend to.

    Args:
        options: of the run.
        progress: told how far it is.

    Raises:
        UserError: an option is missing or impossible, a file cannot be read, or the output holds other maps.
    """
    require(options, COMMAND)
    data = load_data(options, options.benchmark, options.split)
    questions = data.questions(options.skip_missing_scenes, options.questions)
    progress("loading the model", 0, 1)
    model = load_model(options)
    maps = begin(options.output, options.resume, MASS, options.rows, model.identity(), data)

    def compute(part: Sequence[Question]) -> tuple[Tensor, Tensor]:
        asked = [question.annotation for question in part]
        answers = [answer_text(question.annotation, question.benchmark) for question in part]
        scenes = [data.scene(one.scene) for one in asked]
        return maps_of_questions(model, scenes, [one.prompt for one in asked], answers, options.rows)

    fill(maps, questions, options.batch, compute, options.output, progress, "extracting attention maps")
    return maps
