"""Questions of a benchmark and answers of a model, in the files that Chat-Scene reads and writes.

Both are JSON lists with one entry a question. The stored prompt is complete: no template is added at inference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fastsam3d.basics.files import write_json
from fastsam3d.basics.suggestions import suggestion
from fastsam3d.errors import UserError
from fastsam3d.mllm.benchmarks.entries import Entry, read_entries

ZERO_TARGET_TYPES = ("zt_w_d", "zt_wo_d")
"""Questions of Multi3DRefer that no object fits, with and without others of the same kind in the scene."""
TARGET_TYPES = (*ZERO_TARGET_TYPES, "st_w_d", "st_wo_d", "mt")
QUESTION_TYPES = ("what", "is", "how", "can", "which", "other")
"""Kinds of questions of SQA3D, by their number in the files."""


@dataclass(frozen=True)
class Annotation:
    """One question about a scene.

    Attributes:
        scene: name of the scan, such as scene0011_00.
        prompt: the whole question.
        object_id: of the true object that it is about, a row of the true boxes; None where it is about none.
        predicted_id: of the segmented object that it is about (Scan2Cap), a row of the segmented boxes.
        references: right answers; for Multi3DRefer the numbers of the true objects.
        caption: the answer to train on; None in files for validation.
        kind: of the question: one of `TARGET_TYPES` (Multi3DRefer) or `QUESTION_TYPES` (SQA3D).
        question_id: of the data set, kept as it is.
    """

    scene: str
    prompt: str
    object_id: int | None = None
    predicted_id: int | None = None
    references: tuple[Any, ...] = ()
    caption: str | None = None
    kind: str | None = None
    question_id: Any = None


@dataclass(frozen=True)
class Prediction:
    """An answer of a model.

    Attributes:
        annotation: the question. Its references are what the answer is compared with.
        text: the answer.
    """

    annotation: Annotation
    text: str


def read_annotations(path: str | Path, benchmark: str) -> list[Annotation]:
    """Questions of an annotation file, for training or validation.

    Args:
        benchmark: name of it, see `benchmarks.BENCHMARKS`; it decides which fields have to be there.

    Raises:
        UserError: the file cannot be read, or a field is missing or wrong; its entry is named.
    """
    check_benchmark(benchmark)
    return [_annotation(entry, benchmark, "obj_id") for entry in read_entries(path, "the annotation file")]


def read_predictions(path: str | Path, benchmark: str) -> list[Prediction]:
    """Answers of a file of predictions: that of `write_predictions`, or of the evaluation of Chat-Scene.

    Args:
        benchmark: as for `read_annotations`.

    Raises:
        UserError: as for `read_annotations`.
    """
    check_benchmark(benchmark)
    entries = read_entries(path, "the file of predictions")
    return [Prediction(_annotation(entry, benchmark, "gt_id"), entry.text("pred")) for entry in entries]


def write_predictions(path: str | Path, predictions: Sequence[Prediction]) -> Path:
    """Writes answers as JSON, with the fields that the evaluation of Chat-Scene reads.

    Raises:
        UserError: the file cannot be written.
    """
    entries = []
    for prediction in predictions:
        asked = prediction.annotation
        kind: Any = asked.kind
        if kind in QUESTION_TYPES:
            kind = QUESTION_TYPES.index(kind)
        entries.append(
            {
                "scene_id": asked.scene,
                "gt_id": asked.object_id,
                "pred_id": asked.predicted_id,
                "qid": asked.question_id,
                "prompt": asked.prompt,
                "pred": prediction.text,
                "ref_captions": list(asked.references),
                "type_info": kind,
            }
        )
    return write_json(path, entries)


NAMES = ("scanrefer", "multi3drefer", "scan2cap", "scanqa", "sqa3d")
"""Names of the benchmarks."""


def check_benchmark(name: str) -> None:
    """Refuses a name that is none of a benchmark.

    Raises:
        UserError: with the names that are known.
    """
    if name not in NAMES:
        raise UserError(f"there is no benchmark {name!r}. {suggestion(str(name), NAMES)}")


def _annotation(entry: Entry, benchmark: str, object_field: str) -> Annotation:
    common = Annotation(
        scene=entry.text("scene_id"),
        prompt=entry.text("prompt"),
        object_id=entry.optional_number(object_field),
        predicted_id=entry.optional_number("pred_id"),
        caption=entry.optional_text("caption"),
        question_id=entry.get("qid"),
    )
    has_references = entry.get("ref_captions") is not None
    if not has_references and common.caption is None:
        raise UserError(f"{entry.where} has neither ref_captions nor caption: there is nothing to compare with.")
    if not has_references:
        return common
    if benchmark in ("scanrefer", "scan2cap"):
        entry.number(object_field)
    if benchmark == "scan2cap":
        entry.number("pred_id")
    if benchmark == "multi3drefer":
        kind = entry.choice("eval_type" if object_field == "obj_id" else "type_info", TARGET_TYPES)
        return replace(common, references=entry.numbers("ref_captions"), kind=kind)
    if benchmark == "sqa3d":
        numbers = [*range(len(QUESTION_TYPES)), *map(str, range(len(QUESTION_TYPES)))]
        number = entry.choice("sqa_type" if object_field == "obj_id" else "type_info", numbers)
        return replace(common, references=entry.texts("ref_captions"), kind=QUESTION_TYPES[int(number)])
    return replace(common, references=entry.texts("ref_captions"))
