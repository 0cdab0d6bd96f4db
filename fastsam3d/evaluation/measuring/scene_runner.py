"""Seconds and layout of whole scenes: three objects of one picture through the scene path of the pipeline."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastsam3d.basics.record_log import Record, RecordLog
from fastsam3d.evaluation.measuring.counters import STAGES, synchronise
from fastsam3d.evaluation.measuring.methods import Method, guidance_of, guided
from fastsam3d.evaluation.measuring.runner import Runner, rotated
from fastsam3d.evaluation.metrics.outcome import against_truth, outcome_of
from fastsam3d.evaluation.metrics.true_shape import Reference, reference_shape

OBJECTS = 3
"""Of a procedural scene."""


@dataclass(frozen=True)
class SceneCase:
    """A picture with several masked objects, and their true shapes and poses."""

    image: Any
    masks: Sequence[Any]
    pointmap: Any
    references: Sequence[Reference]
    poses: Sequence[Any]


def procedural_scene(seed: int) -> SceneCase:
    """The scene of a seed with its truth."""
    from fastsam3d.procedural.scene_render import render_scene
    from fastsam3d.procedural.scenes import make_scene

    scene = make_scene(seed, OBJECTS)
    picture = render_scene(scene)
    references = [reference_shape(placed.object) for placed in scene.objects]
    return SceneCase(picture.image, list(picture.masks), picture.pointmap, references, scene.poses)


def measure_scenes(
    runner: Runner,
    methods: Sequence[Method],
    seeds: Sequence[int],
    guidance: Sequence[float | None],
    log: RecordLog,
    make_scene: Callable[[int], SceneCase] | None = None,
) -> None:
    """Runs every method on every scene that the log does not hold yet.

    A control takes as many evaluations as its partner took on average on the single objects of the log: those of a
    scene run in batches, in which an evaluation is something else.
    """
    from tqdm import tqdm

    total = len(seeds) * len(guidance) * len(methods)
    with tqdm(total=total, desc="scenes", file=sys.stderr, unit="run", disable=total == 0) as bar:
        for number, seed in enumerate(seeds):
            scene = None
            for strength in guidance:
                with guided(runner.pipeline, strength):
                    named = {"kind": "scene", "guidance": guidance_of(runner.pipeline), "scene_seed": seed}
                    if log.select(**named):
                        bar.update(len(methods))
                        continue
                    scene = scene or (make_scene or procedural_scene)(seed)
                    own: dict[str, Record] = {}
                    for name, method, _ in rotated([(method.name, method, 0) for method in methods], number):
                        if method.matched_to is not None:
                            taken = _taken(log, method.matched_to, named["guidance"])
                            method = method.matched(runner.pipeline, taken)
                        own[name] = {"method": name, **run_scene(runner, method, scene, seed)}
                        bar.update()
                    log.append([{**named, "methods": [own[method.name] for method in methods]}])


def run_scene(runner: Runner, method: Method, scene: SceneCase, seed: int) -> Record:
    """Runs one timed scene; returns its seconds, and the mean 3D-IoU of the objects that succeeded."""
    from fastsam3d.sam3d.scene.reconstruct import reconstruct_scene

    with method.attached(runner.pipeline):
        synchronise(runner.device)
        start, start_cpu = time.perf_counter(), time.process_time()
        result = reconstruct_scene(
            runner.pipeline, scene.image, scene.masks, seed=seed % 2**31, pointmap=scene.pointmap
        )
        synchronise(runner.device)
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
    boxes = [
        against_truth(outcome_of(item.reconstruction, seed, runner.points), reference, pose)["iou_3d"]
        for item, reference, pose in zip(result.objects, scene.references, scene.poses, strict=True)
        if item.reconstruction is not None
    ]
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "iou_3d": float(np.mean(boxes)) if boxes else float("nan"),
        "failed": len(result.failures),
    }


def _taken(log: RecordLog, method: str, guidance: float | str) -> dict[str, int]:
    """Mean evaluations of a method by stage."""
    units = log.select(kind="object", guidance=guidance)
    records = [record for unit in units for record in unit["methods"] if record["method"] == method]
    return {column: round(float(np.mean([record[column] for record in records]))) for column in STAGES}
