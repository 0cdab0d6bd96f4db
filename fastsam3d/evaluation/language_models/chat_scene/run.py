"""Evaluates Chat-Scene on its benchmarks, plain or pruned: answers, files of predictions, scores.

The steps of Fast3D (ACM MM 2025) are settings of it: plain inference, FastV, stored maps, and stored maps with the
adaptive budget.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fastsam3d.acceleration.handle import accelerate
from fastsam3d.acceleration.presets import AccelerationConfig
from fastsam3d.acceleration.settings import AccelerationWarning
from fastsam3d.basics.files import write_json, write_text
from fastsam3d.basics.options import prepare_directory
from fastsam3d.basics.paths import user_path
from fastsam3d.basics.version import __version__
from fastsam3d.errors import UserError
from fastsam3d.evaluation.language_models.chat_scene.answers import AnswerLog
from fastsam3d.evaluation.language_models.chat_scene.loading import load_data, load_model, require
from fastsam3d.evaluation.language_models.chat_scene.options import EvaluationOptions
from fastsam3d.evaluation.language_models.chat_scene.settings import settings_of
from fastsam3d.evaluation.language_models.chat_scene.tables import render
from fastsam3d.mllm.benchmarks import BENCHMARKS, Prediction, References, read_references, score, write_predictions
from fastsam3d.mllm.benchmarks.scoring import check_scorable
from fastsam3d.mllm.chat_scene import ChatScene, QuestionData
from fastsam3d.mllm.chat_scene.questions import answer_in_turn
from fastsam3d.mllm.predictor.question_sets import first_number
from fastsam3d.mllm.predictor.stored_maps import StoredMaps, load_maps
from fastsam3d.mllm.report import Report

COMMAND = "mllm evaluate"
SCORES, TABLE = "scores.json", "scores.md"
Progress = Callable[[str, int, int], None]
"""Called with the name of the present step, the number of questions that are done, and the number of all."""


@dataclass(frozen=True)
class Evaluation:
    """Everything that an evaluation needs beside the model. It is read and checked before the model is loaded.

    Attributes:
        options: of the run.
        config: settings of the pruning.
        data: questions and scenes.
        places: by benchmark, the places of the asked questions in its list of annotations.
        references: what answers are compared with.
        maps: stored maps, which rank the objects; None: the scorer of the settings does.
        first: by benchmark, the number of its first question among the stored maps; empty without maps.
    """

    options: EvaluationOptions
    config: AccelerationConfig
    data: QuestionData
    places: Mapping[str, list[int]]
    references: References
    maps: StoredMaps | None
    first: Mapping[str, int]


def evaluate(
    options: EvaluationOptions, changes: Mapping[str, str], progress: Progress = lambda what, done, total: None
) -> dict[str, Any]:
    """Answers the questions, and writes `BENCHMARK.json` in the public format, `scores.json` and `scores.md`.

    Args:
        options: of the run.
        changes: changed settings of the preset, see `settings_of`.
        progress: called before each step and after each batch.

    Returns:
        What is in `scores.json`.

    Raises:
        UserError: an option is missing or impossible, a file cannot be read, or the folder holds another evaluation.
    """
    evaluation = prepare(options, changes)
    folder = prepare_directory(user_path(options.output), COMMAND)
    progress("loading the model", 0, 1)
    model = load_model(options)
    _check_model(evaluation.maps, model)
    log = AnswerLog(folder, _identity(evaluation, model), options.resume)
    result: dict[str, Any] = {
        "version": __version__,
        "preset": evaluation.config.name,
        "settings": _settings(evaluation.config),
        "maps": None if evaluation.maps is None else {"kind": evaluation.maps.kind, "rows": evaluation.maps.rows},
        "split": options.split,
        "model": model.identity(),
        "dtype": options.dtype,
        "benchmarks": [],
    }
    with warnings.catch_warnings():
        # What settings cost is what is being measured.
        warnings.simplefilter("ignore", AccelerationWarning)
        acceleration = accelerate(model, evaluation.config)
    with acceleration:
        for name in evaluation.places:
            _answer(evaluation, name, model, acceleration, log, progress)
            result["benchmarks"].append(_scored(evaluation, name, log, folder, progress))
            write_json(folder / SCORES, result)
            write_text(folder / TABLE, render(result))
    return result


def prepare(options: EvaluationOptions, changes: Mapping[str, str]) -> Evaluation:
    """Reads everything but the model, and checks that it fits together.

    Raises:
        UserError: as for `evaluate`.
    """
    maps = None if options.maps is None else load_maps(options.maps)
    config = settings_of(options.preset, changes, maps)
    require(options, COMMAND)
    data = load_data(options, options.benchmark, options.split)
    assert options.annotations is not None
    references = replace(read_references(options.annotations, options.split), segmented=data.objects)
    places, first = {}, {}
    for name, of_one in data.annotations.items():
        places[name] = data.places(name, options.skip_missing_scenes)[: options.questions]
        asked = [of_one[place] for place in places[name]]
        check_scorable(name, asked, references, skip_missing_scenes=options.skip_missing_scenes)
        if maps is not None:
            if maps.sets or len(data.annotations) > 1:
                first[name] = first_number(maps.sets, data.sets[name])
            maps.require(first.setdefault(name, 0) + place for place in places[name])
    return Evaluation(options, config, data, places, references, maps, first)


def _check_model(maps: StoredMaps | None, model: ChatScene) -> None:
    if maps is not None and maps.model != model.identity():
        raise UserError(
            f"the maps were made for the model {maps.model!r}, and this model is {model.identity()!r}: make the maps "
            "again for this model"
        )


def _answer(
    evaluation: Evaluation, name: str, model: ChatScene, acceleration: Any, log: AnswerLog, progress: Progress
) -> None:
    """Answers those questions of a benchmark that have no answer yet."""
    options, data, maps = evaluation.options, evaluation.data, evaluation.maps
    places, known = evaluation.places[name], log.texts(data.sets[name])
    ahead, first = [place for place in places if place not in known], evaluation.first.get(name, 0)
    done, title = len(places) - len(ahead), BENCHMARKS[name].title
    progress(title, done, len(places))
    answered = answer_in_turn(
        model,
        data.annotations[name],
        data.features,
        data.objects,
        numbers=ahead,
        batch=options.batch,
        seed=options.seed,
        scores=None if maps is None else lambda place: maps.maps[first + place],
        num_beams=options.num_beams,
        max_new_tokens=options.max_new_tokens,
    )
    acceleration.reset_report()
    for part in answered:
        log.append(data.sets[name], part, acceleration.report())
        acceleration.reset_report()
        done += len(part)
        progress(title, done, len(places))


def _scored(evaluation: Evaluation, name: str, log: AnswerLog, folder: Path, progress: Progress) -> dict[str, Any]:
    """Writes the predictions of a benchmark; returns its scores and what the pruning did."""
    options, data = evaluation.options, evaluation.data
    texts, places = log.texts(data.sets[name]), evaluation.places[name]
    progress(f"{BENCHMARKS[name].title}: scores", len(places), len(places))
    predictions = [Prediction(data.annotations[name][place], texts[place]) for place in places]
    write_predictions(folder / f"{name}.json", predictions)
    skip = options.skip_missing_scenes
    scores = score(name, predictions, evaluation.references, skip_missing_scenes=skip, with_meteor=options.meteor)
    begin = Report(evaluation.config.name, evaluation.config.enabled)
    report = log.report(data.sets[name], places, begin).to_dict()
    return {
        "benchmark": name,
        "questions": len(places),
        "left_out": len(data.annotations[name]) - len(places),
        "scores": scores,
        "kept_objects": report["groups_kept"] / report["samples"] if report["samples"] else None,
        "report": report,
    }


def _settings(config: AccelerationConfig) -> dict[str, Any]:
    """What is switched on, with its values."""
    groups = {name.partition(".")[0] for name in config.enabled}
    return {group: values for group, values in config.to_dict().items() if group in groups}


def _identity(evaluation: Evaluation, model: ChatScene) -> dict[str, Any]:
    options, maps = evaluation.options, evaluation.maps
    names = ("split", "dtype", "seed", "num_beams", "max_new_tokens")
    return {
        "model": model.identity(),
        "settings": _settings(evaluation.config),
        "maps": None if maps is None else _digest(maps),
        **{name: getattr(options, name) for name in names},
    }


def _digest(maps: StoredMaps) -> str:
    digest = hashlib.sha256(f"{maps.kind} {maps.rows} {maps.model} {maps.sets}".encode())
    for number in sorted(maps.maps):
        digest.update(f"{number} ".encode() + maps.maps[number].numpy().tobytes())
    return digest.hexdigest()[:16]
