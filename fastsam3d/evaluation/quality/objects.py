"""Quality of the untouched pipeline on objects it was never trained on, with the controls that make it
believable.

`python -m fastsam3d quality objects=128 output=DIR` writes quality.json, quality.md and
gallery.png. Every object is recorded as soon as it is done; the same command goes on where it was
interrupted, as long as the weights and settings are the same.

Controls: "shuffled" compares each result with the next object's truth, which is what a pipeline that does not
look at its image would get; "other seed" compares two results of one image with one another and so shows how
much the image leaves open.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fastsam3d.basics.files import finite
from fastsam3d.basics.record_log import end_last_line, json_lines
from fastsam3d.evaluation.measuring.provenance import config_fingerprint, weights_fingerprint
from fastsam3d.evaluation.measuring.runner import NOISE_SHIFT
from fastsam3d.evaluation.metrics.outcome import Outcome, against_outcome, against_truth, outcome_of
from fastsam3d.evaluation.metrics.true_colors import compare_colors
from fastsam3d.evaluation.metrics.true_shape import Reference, reference_shape
from fastsam3d.evaluation.quality.options import QualityOptions
from fastsam3d.evaluation.quality.tables import APPEARANCE_COLUMNS, SHAPE_COLUMNS, summarise_quality
from fastsam3d.procedural import HELD_OUT_SEED


def evaluate_quality(
    pipeline: Any,
    objects: int = 128,
    first_seed: int = HELD_OUT_SEED,
    *,
    options: QualityOptions | None = None,
    directory: Path | None = None,
    make_view: Callable[[int], Any] | None = None,
) -> dict[str, Any]:
    """Metrics of a pipeline on `objects` procedural objects from `first_seed` on.

    options: everything else; its own objects and first_seed then count. directory: where progress is kept;
    without one nothing is written. make_view: as in the benchmark.

    Returns "overall", "families" (by name), "shuffled" and "other_seed": column -> mean, and "overall" also
    "<column>_ci", 95 % limits of the mean, and "<column>_median" for angles and distances; "meta"; "objects":
    records.
    """
    if make_view is None:
        from fastsam3d.procedural import samples

        make_view = samples.make_view
    options = options or QualityOptions(objects=objects, first_seed=first_seed)
    identity = _identity(pipeline, options)
    log = None if directory is None else directory / "objects.jsonl"
    done = _recorded(log, identity)
    measure = _Measurement(pipeline, options, make_view)
    seeds = range(options.first_seed, options.first_seed + options.objects)

    from tqdm import tqdm

    for seed in tqdm(seeds, desc="quality", file=sys.stderr, unit="object"):
        if seed in done:
            continue
        done[seed] = {"object_seed": seed, "identity": identity, **measure.record(seed)}
        if log is not None:
            with log.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(finite(done[seed])) + "\n")
    records = [done[seed] for seed in seeds]
    return summarise_quality(records, {**asdict(options), "steps": _steps(pipeline), "identity": identity})


def draw_gallery(pipeline: Any, result: dict[str, Any], options: QualityOptions, path: Path) -> None:
    """Inputs beside their meshes: the first object of every family, then further ones."""
    from fastsam3d.evaluation.quality.gallery import gallery
    from fastsam3d.procedural.samples import make_view

    first: dict[str, int] = {}
    for record in result["objects"]:
        first.setdefault(record["family"], record["object_seed"])
    rest = [record["object_seed"] for record in result["objects"] if record["object_seed"] not in first.values()]
    views = [make_view(seed) for seed in [*first.values(), *rest][: options.gallery]]
    seeds = [*first.values(), *rest][: options.gallery]
    results = [
        pipeline.run(view.image, view.mask, seed=seed + options.noise_seed, pointmap=view.pointmap)
        for view, seed in zip(views, seeds, strict=True)
    ]
    gallery(views, results, path)


class _Measurement:
    """Runs and compares one object after the other; the truth of two objects is kept for the shuffled
    control."""

    def __init__(self, pipeline: Any, options: QualityOptions, make_view: Callable[[int], Any]) -> None:
        self.pipeline, self.options, self.make_view = pipeline, options, make_view
        self.kept: dict[int, tuple[Any, Reference]] = {}

    def record(self, seed: int) -> dict[str, Any]:
        options = self.options
        following = options.first_seed + (seed + 1 - options.first_seed) % options.objects
        self.kept = {key: value for key, value in self.kept.items() if key in (seed, following)}
        view, reference = self.truth(seed)
        outcome, seconds = self.run(view, seed, options.noise_seed)
        result: dict[str, Any] = {"family": reference.family, "seconds": seconds}
        result.update(against_truth(outcome, reference, view.pose))
        result.update(compare_colors(outcome.mesh, reference.shape, seed))
        if following != seed:
            other_truth = self.truth(following)[1]
            shuffled = against_truth(outcome, other_truth) | compare_colors(outcome.mesh, other_truth.shape, seed)
            result.update({f"shuffled_{name}": shuffled[name] for name in SHAPE_COLUMNS + APPEARANCE_COLUMNS})
        if options.other_seed:
            other, _ = self.run(view, seed, options.noise_seed + NOISE_SHIFT)
            compared = {**against_truth(other, reference, view.pose), **against_outcome(other, outcome)}
            result.update({f"other_{name}": value for name, value in compared.items()})
        return result

    def truth(self, seed: int) -> tuple[Any, Reference]:
        if seed not in self.kept:
            view = self.make_view(seed)
            self.kept[seed] = view, reference_shape(view.object, points=self.options.points)
        return self.kept[seed]

    def run(self, view: Any, seed: int, shift: int) -> tuple[Outcome, float]:
        result = self.pipeline.run(view.image, view.mask, seed=seed + shift, pointmap=view.pointmap)
        return outcome_of(result, seed, self.options.points), sum(result.stage_seconds.values())


def _steps(pipeline: Any) -> dict[str, int]:
    return {name: pipeline.models[name].inference_steps for name in ("ss_generator", "slat_generator")}


def _identity(pipeline: Any, options: QualityOptions) -> str:
    """Fingerprint of weights, constants and settings, so that records of other ones are not taken over."""
    digest = hashlib.sha256(f"{weights_fingerprint(pipeline)}{config_fingerprint(pipeline)}".encode())
    strengths = [pipeline.models[name].reverse_fn.strength for name in ("ss_generator", "slat_generator")]
    settings = (options.noise_seed, options.points, options.other_seed, _steps(pipeline), strengths, APPEARANCE_COLUMNS)
    # The control of the last object looks at the first, so the number of objects counts for it; that one
    # record differs between 64 and 128 objects by nothing that matters, and a longer run may go on from a
    # shorter one.
    digest.update(repr(settings).encode())
    return digest.hexdigest()[:16]


def _recorded(log: Path | None, identity: str) -> dict[int, dict[str, Any]]:
    """Records of an earlier run that fit, by the seed of their object."""
    if log is None or not log.exists():
        return {}
    end_last_line(log)
    return {record["object_seed"]: record for record in json_lines(log) if record.get("identity") == identity}
