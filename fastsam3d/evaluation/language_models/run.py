"""Runs the whole benchmark: answers, scores, milliseconds and counts of every row."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from typing import Any

from fastsam3d.acceleration.presets import load_preset
from fastsam3d.basics.devices import check_device
from fastsam3d.basics.files import write_json, write_text
from fastsam3d.basics.options import prepare_directory
from fastsam3d.basics.paths import user_path
from fastsam3d.basics.version import __version__
from fastsam3d.evaluation.language_models.answering import Answers, answer_all
from fastsam3d.evaluation.language_models.counted import count_rows
from fastsam3d.evaluation.language_models.held_out import FEWEST, MOST, held_out_rooms
from fastsam3d.evaluation.language_models.options import PruningBenchmarkOptions
from fastsam3d.evaluation.language_models.plots import draw_scores
from fastsam3d.evaluation.language_models.rows import ALL, adaptive_rows, predictors_of, rows_of
from fastsam3d.evaluation.language_models.scores import judge, scores_of
from fastsam3d.evaluation.language_models.tables import render
from fastsam3d.evaluation.language_models.timing import Setting, time_rows
from fastsam3d.evaluation.measuring.methods import OFF, Method
from fastsam3d.mllm.mini.loading import load_small_model

logger = logging.getLogger(__name__)
TIMED = ("balanced", "gap_fixed_90", "fastv_90", "random_90")
"""Presets that are timed when all rows are compared. Most others cut at the same layers."""
BEAMS = 5
COMMAND = "mllm bench"


def run(options: PruningBenchmarkOptions) -> dict[str, Any]:
    """Runs the benchmark and writes `bench.json`, `bench.md` and, where matplotlib is installed, `scores.png`.

    Raises:
        UserError: a row or the device is unknown, a file is missing, or the folder cannot be written.
    """
    device, output = check_device(options.device), prepare_directory(user_path(options.output), COMMAND)
    rows, predictors = rows_of(options.methods), predictors_of(options.predictors)
    model = load_small_model(options.model).to(device)
    asked = held_out_rooms(options.rooms, options.questions, options.seed)
    result: dict[str, Any] = {
        "version": __version__,
        "rooms": options.rooms,
        "questions": sum(len(one.questions) for one in asked),
        "objects": [FEWEST, MOST],
        "seed": options.seed,
        "layers": len(model.language_model.model.layers),
    }
    if options.timing:
        result["timing"] = time_rows(model, _timed(rows), _settings(options), options.rounds)
    if ALL in options.methods or predictors:
        rows += adaptive_rows(model, predictors)
    said = {}
    for row in rows:
        said[row.name] = answer_all(model, row, asked)
        logger.info("%s: answered", row.name)
    unpruned = judge(said[OFF], asked)
    result["rows"] = [_row(answers, scores_of(judge(answers, asked), unpruned)) for answers in said.values()]
    kept = {row["method"]: row["kept_share"] for row in result["rows"]}
    result["counted"] = count_rows(rows, kept)
    write_json(output / "bench.json", result)
    write_text(output / "bench.md", render(result))
    if find_spec("matplotlib") is not None:
        draw_scores(result["rows"], output / "scores.png")
    return result


def _settings(options: PruningBenchmarkOptions) -> list[Setting]:
    plain = [Setting(count, batch, 1) for count in options.objects for batch in options.batches]
    # The largest rooms with many beams or samples would take minutes and say nothing new.
    plain = [setting for setting in plain if setting.objects * setting.batch <= 2400]
    return [*plain, Setting(options.objects[0], 1, BEAMS)]


def _timed(rows: list[Method]) -> list[Method]:
    chosen = [row for row in rows if row.name in (OFF, *TIMED)]
    return chosen if len(chosen) > 1 else rows


def _row(answers: Answers, scores: dict[str, Any]) -> dict[str, Any]:
    method, report = answers.method, answers.report
    settings: dict[str, Any] = {}
    if method.preset != OFF:
        config = load_preset(method.preset, method.overrides, method.family)
        settings = {name: value for name, value in config.to_dict().items() if isinstance(value, dict)}
    samples = max(report.get("samples", 0), 1)
    groups = report.get("groups", 0)
    return {
        "method": method.name,
        "preset": method.preset,
        "overrides": dict(method.overrides),
        "pruning": settings.get("pruning", {}),
        "pruned_share": report.get("pruned_share", 0.0),
        "kept_share": report["groups_kept"] / groups if groups else 1.0,
        "kept_objects": report.get("groups_kept", 0) / samples if groups else None,
        "tokens_by_layer": [tokens / samples for tokens in report.get("tokens_by_layer", [])],
        "scoring_ms": 1000 * report.get("scoring_seconds", 0.0) / samples,
        **scores,
    }
