"""Fills a file of maps question by question, so that an interrupted command goes on where it was."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor

from fastsam3d.basics.paths import user_path
from fastsam3d.errors import UserError
from fastsam3d.evaluation.language_models.chat_scene.run import Progress
from fastsam3d.mllm.chat_scene.question_data import Question, QuestionData
from fastsam3d.mllm.predictor.stored_maps import StoredMaps, load_maps, save_maps

SAVE_SECONDS = 120.0
"""From one writing of the file to the next."""
Compute = Callable[[Sequence[Question]], tuple[Tensor, Tensor]]
"""Gives the maps of some questions, (B, N), and which objects are there, (B, N) bool."""


def begin(path: str | Path, resume: bool, kind: str, rows: str, model: str, data: QuestionData) -> StoredMaps:
    """The maps that a file has already, or none.

    Args:
        path: of the file.
        resume: false begins anew.
        kind, rows, model: as of `StoredMaps`.
        data: whose questions get maps.

    Raises:
        UserError: the file holds other maps, or is none.
    """
    sets = tuple(data.sets.values())
    if not resume or not user_path(path).exists():
        return StoredMaps(kind, rows, model, sets=sets)
    try:
        maps = load_maps(path, model, kind, rows)
    except UserError as error:
        raise UserError(f"{error}; or choose another output, or resume=false to begin anew") from None
    if maps.sets != sets:
        names = ", ".join(one.name for one in maps.sets) or "of sets without a name"
        raise UserError(
            f"{path} holds maps of other questions ({names}): choose another output, give the same annotation files "
            "and benchmarks as then, or resume=false to begin anew"
        )
    return maps


def fill(
    maps: StoredMaps,
    questions: Sequence[Question],
    batch: int,
    compute: Compute,
    path: str | Path,
    progress: Progress,
    what: str,
) -> None:
    """Computes the maps that are missing, and writes the file now and then and at the end.

    Args:
        maps: that are there; they grow.
        questions: that get maps.
        batch: questions at a time.
        compute: makes their maps.
        path: of the file.
        progress: told how far it is.
        what: is done, for it.

    Raises:
        UserError: the file cannot be written, or a map cannot be made; what was made before is kept.
    """
    ahead = [question for question in questions if question.number not in maps.maps]
    done, saved, written = len(questions) - len(ahead), time.monotonic(), len(maps.maps)
    progress(what, done, len(questions))
    try:
        for start in range(0, len(ahead), batch):
            part = ahead[start : start + batch]
            for question, values, present in zip(part, *compute(part), strict=True):
                maps.add(question.number, values, present)
            done += len(part)
            progress(what, done, len(questions))
            if time.monotonic() - saved > SAVE_SECONDS:
                save_maps(maps, path)
                saved, written = time.monotonic(), len(maps.maps)
    finally:
        if len(maps.maps) > written:
            save_maps(maps, path)
