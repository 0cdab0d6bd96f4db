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
"""Questions of Multi3DRefer that no object fits, in scenes with (`w_d`) or without (`wo_d`) objects of the class."""
TARGET_TYPES = (*ZERO_TARGET_TYPES, "st_w_d", "st_wo_d", "mt")
QUESTION_TYPES = ("what", "is", "how", "can", "which", "other")
"""Kinds of questions of SQA3D, by their number in the files."""


@dataclass(frozen=True)
class Annotation:
    """One question about a scene.

    Attributes:
        scene: name of the scan, such as scene0011_00.
        prompt: the whole question.
        object_id: number of the annotated ("true") object that the question is about, a row of the true boxes; None
            where it is about no single object.
        predicted_id: number of the segmented object that the question is about (Scan2Cap), a row of the segmented
            boxes; None elsewhere.
        references: right answers. For Multi3DRefer, they are the numbers of the true objects.
        caption: the answer to train on; None in files for validation.
        kind: kind of question: one of `TARGET_TYPES` (Multi3DRefer) or `QUESTION_TYPES` (SQA3D); None elsewhere.
        question_id: value of the field `qid`, unchanged.
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
        annotation: the question. The answer is compared with its references.
        text: the answer.
    """

    annotation: Annotation
    text: str


def read_annotations(path: str | Path, benchmark: str) -> list[Annotation]:
    """Reads the questions of an annotation file, for training or validation.

    Args:
        path: of the JSON file.
        benchmark: name of the benchmark, see `benchmarks.BENCHMARKS`. It decides which fields are required.

    Raises:
        UserError: there is no such benchmark, the file cannot be read, or a field is missing or wrong. The message
            names the entry.
    """
    check_benchmark(benchmark)
    return [_annotation(entry, benchmark, "obj_id") for entry in read_entries(path, "the annotation file")]


def read_predictions(path: str | Path, benchmark: str) -> list[Prediction]:
    """Reads the answers in a file that `write_predictions` or the evaluation of Chat-Scene wrote.

    Args:
        path: of the JSON file.
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
    """Checks the name of a benchmark.

    Raises:
        UserError: no benchmark has this name.
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
