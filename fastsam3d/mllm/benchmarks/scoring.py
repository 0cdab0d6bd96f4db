"""The table of the benchmarks, and the one function that scores the answers of a model."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fastsam3d.errors import UserError
from fastsam3d.mllm.benchmarks.annotations import ZERO_TARGET_TYPES, Annotation, Prediction, check_benchmark
from fastsam3d.mllm.benchmarks.answering import score_scanqa, score_sqa3d
from fastsam3d.mllm.benchmarks.captioning import score_scan2cap
from fastsam3d.mllm.benchmarks.grounding import Scores, score_multi3drefer, score_scanrefer
from fastsam3d.mllm.benchmarks.references import References

REFERENCE_FILES = {
    "segmented": "the attribute file of the segmented objects",
    "true": "the attribute file of the true objects",
    "corpus": "the corpus of captions",
}


@dataclass(frozen=True)
class Benchmark:
    """A public benchmark of language models that read 3D scenes.

    Attributes:
        name: name in this package.
        title: name as its authors write it.
        asks: what its questions ask for.
        file: name of the annotation file, in the layout of Chat-Scene; `{split}` is train or val.
        needs: attributes of `References` that must be given.
        main: the score that papers compare first.
        compute: function (predictions, references, with_meteor) -> scores.
    """

    name: str
    title: str
    asks: str
    file: str
    needs: tuple[str, ...]
    main: str
    compute: Callable[[Sequence[Prediction], References, bool], Scores]


_BOXES = ("segmented", "true")
BENCHMARKS = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark(
            "scanrefer",
            "ScanRefer",
            "the object that a description fits",
            "scanrefer_mask3d_{split}.json",
            _BOXES,
            "acc@0.5",
            lambda predictions, references, _: score_scanrefer(predictions, references),
        ),
        Benchmark(
            "multi3drefer",
            "Multi3DRefer",
            "all objects that a description fits, or none",
            "multi3dref_mask3d_{split}.json",
            _BOXES,
            "f1@0.5",
            lambda predictions, references, _: score_multi3drefer(predictions, references),
        ),
        Benchmark(
            "scan2cap",
            "Scan2Cap",
            "a description of an object",
            "scan2cap_mask3d_{split}.json",
            (*_BOXES, "corpus"),
            "cider@0.5",
            score_scan2cap,
        ),
        Benchmark(
            "scanqa",
            "ScanQA",
            "a short answer about a scene",
            "scanqa_{split}.json",
            (),
            "cider",
            lambda predictions, _, with_meteor: score_scanqa(predictions, with_meteor),
        ),
        Benchmark(
            "sqa3d",
            "SQA3D",
            "a short answer from somebody's place in a scene",
            "sqa3d_{split}.json",
            (),
            "em",
            lambda predictions, _references, _: score_sqa3d(predictions),
        ),
    )
}
"""The benchmarks by name."""


def score(
    benchmark: str,
    predictions: Sequence[Prediction],
    references: References | None = None,
    *,
    skip_missing_scenes: bool = False,
    with_meteor: bool = True,
) -> Scores:
    """Scores answers as the public evaluation of a benchmark does.

    Args:
        benchmark: name of the benchmark, see `BENCHMARKS`.
        predictions: answers with their questions.
        references: boxes and corpus, for benchmarks that need them; `read_references(folder)` reads them.
        skip_missing_scenes: leave out answers about scenes without boxes, with a warning; False: they are an error.
        with_meteor: compute METEOR where pycocoevalcap and Java are installed.

    Returns:
        Scores by name, 0..1 (CIDEr: 0..10); None for a score that cannot be computed. `samples` is the number of
        answers that were scored, and `skipped` the number of those that were left out.

    Raises:
        UserError: no such benchmark, no answers, an answer whose question has no reference, or references that are
            missing or do not belong to the questions.
    """
    known, given = _require(benchmark, references), references or References()
    kept = _kept(known, predictions, given)
    if "true" in known.needs:
        _tell_missing(known, predictions, given, skip_missing_scenes)
    if not kept:
        raise UserError(f"there are no answers of {known.title} to score: give at least one.")
    for number, prediction in enumerate(kept):
        _check_references(known, number, prediction)
    scores = known.compute(kept, given, with_meteor)
    return {"samples": len(kept), "skipped": len(predictions) - len(kept)} | scores


def check_scorable(
    benchmark: str,
    annotations: Sequence[Annotation],
    references: References | None,
    *,
    skip_missing_scenes: bool = False,
) -> None:
    """Checks, before questions are answered, that `score` will accept the answers. The arguments are those of `score`.

    Raises:
        UserError: as for `score`.
    """
    known, given = _require(benchmark, references), references or References()
    unanswered = [Prediction(asked, "") for asked in annotations]
    if "true" in known.needs and not skip_missing_scenes:
        _tell_missing(known, unanswered, given, False)
    kept = _kept(known, unanswered, given)
    if not kept:
        raise UserError(f"there are no questions of {known.title} to score: give at least one about a known scene.")
    for number, prediction in enumerate(unanswered):
        _check_references(known, number, prediction)
    if known.needs == _BOXES:
        known.compute(kept, given, False)  # finds objects that the reference files do not have
    elif "true" in known.needs:  # the same without the caption scores, which take long
        for asked in (prediction.annotation for prediction in kept):
            assert asked.object_id is not None
            given.true_box(asked.scene, asked.object_id)


def _require(benchmark: str, references: References | None) -> Benchmark:
    check_benchmark(benchmark)
    known = BENCHMARKS[benchmark]
    for name in known.needs:
        if getattr(references, name, None) is None:
            raise UserError(
                f"{known.title} needs {REFERENCE_FILES[name]}, which is not given: read_references(folder) reads it "
                "from the annotation folder."
            )
    return known


def _kept(benchmark: Benchmark, predictions: Sequence[Prediction], references: References) -> list[Prediction]:
    """The answers that can be scored: where boxes are needed, those about scenes with boxes."""
    if "true" not in benchmark.needs:
        return list(predictions)
    return [prediction for prediction in predictions if references.has_scene(prediction.annotation.scene)]


def _tell_missing(benchmark: Benchmark, predictions: Sequence[Prediction], references: References, skip: bool) -> None:
    scenes = [prediction.annotation.scene for prediction in predictions]
    missing = [scene for scene in scenes if not references.has_scene(scene)]
    if not missing:
        return
    counts = f"{len(missing)} of {len(scenes)} answers"
    text = f"{benchmark.title}: {counts} are about scenes without boxes, such as {missing[0]}"
    if not skip:
        raise UserError(f"{text}: give the attribute files of the same split, or skip_missing_scenes=True.")
    warnings.warn(f"{text}; they are left out.", stacklevel=3)


def _check_references(benchmark: Benchmark, number: int, prediction: Prediction) -> None:
    asked = prediction.annotation
    lacks_object = "true" in benchmark.needs and benchmark.name != "multi3drefer" and asked.object_id is None
    lacks_segment = benchmark.name == "scan2cap" and asked.predicted_id is None
    answered = benchmark.name in ("scanqa", "sqa3d") or (
        benchmark.name == "multi3drefer" and asked.kind not in ZERO_TARGET_TYPES
    )
    if lacks_object or lacks_segment or (answered and not asked.references):
        raise UserError(
            f"{benchmark.title}: answer {number} is about a question without references ({asked.prompt[:80]!r}): "
            "score only answers to the annotations for validation."
        )
