"""`python -m fastsam3d bench`: acceleration methods on the same objects with the same noise, in one process.

How a run is timed and judged stands in `fastsam3d.evaluation.measuring.runner`; what the columns mean in
docs/bench.schema.json.
Measurements are appended to records.jsonl as they are made, object by object: the same command goes on where an
earlier one was interrupted. The results are made from the records alone, by this command or, without measuring
anything, by `bench report=DIR`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from fastsam3d.basics.record_log import Record, RecordLog
from fastsam3d.errors import UserError
from fastsam3d.evaluation.benchmark import experiments
from fastsam3d.evaluation.benchmark.options import BenchmarkOptions
from fastsam3d.evaluation.benchmark.result import result_of
from fastsam3d.evaluation.measuring import scene_runner
from fastsam3d.evaluation.measuring.methods import Method, guidance_of, guided, resolve_methods
from fastsam3d.evaluation.measuring.provenance import environment
from fastsam3d.evaluation.measuring.runner import Case, Runner
from fastsam3d.evaluation.measuring.seeds import object_seeds


def chosen_methods(options: BenchmarkOptions) -> list[Method]:
    """The methods that the options ask for; UserError where they do not fit together."""
    if options.ablation and options.sweep:
        raise UserError("bench: ablation=true and sweep are two experiments: run one after the other")
    if options.presets and not options.sweep:
        raise UserError("bench: presets=[...] belongs to a sweep: use methods=[...] to choose what is compared")
    if options.ablation:
        return experiments.ablation_methods()
    if options.sweep:
        return experiments.sweep_methods(options.sweep, options.presets)
    return resolve_methods(options.methods)


def run_benchmark(
    pipeline: Any,
    options: BenchmarkOptions,
    make_view: Callable[[int], Any] | None = None,
    *,
    methods: Sequence[Method] | None = None,
    log: RecordLog | None = None,
    make_scene: Callable[[int], Any] | None = None,
) -> Record:
    """Measures every method on every object and scene.

    Args:
        make_view: object seed -> view with `.object`, `.image`, `.mask`, `.pointmap`, `.pose`; procedural by default.
        methods: by default those of the options.
        log: where records go and earlier ones come from; by default nowhere.
        make_scene: seed -> `scene_runner.SceneCase`; procedural by default.

    Returns:
        `{"rows": [...], "meta": {...}, "objects": [...]}` as bench.json has it.
    """
    if make_view is None:
        from fastsam3d.procedural import samples

        make_view = samples.make_view
    methods = list(chosen_methods(options) if methods is None else methods)
    if log is None:
        log = RecordLog(None, identity_of(pipeline, options, methods))
    seeds, warmup_seeds = object_seeds(options.seed, options.objects, warmup=options.warmup)
    runner = Runner(pipeline, options.device, options.points)
    warm_cases = [Case(seed, make_view, options.points) for seed in warmup_seeds]
    methods = _warm_up(runner, methods, warm_cases, options, log)
    columns = len(methods) + options.noise_row + options.limit

    from tqdm import tqdm

    total = columns * len(seeds) * len(options.guidance)
    with tqdm(total=total, desc="bench", file=sys.stderr, unit="run") as bar:
        for number, seed in enumerate(seeds):
            case = Case(seed, make_view, options.points)
            for strength in options.guidance:
                with guided(pipeline, strength):
                    guidance = guidance_of(pipeline)
                    if not log.select(kind="object", guidance=guidance, object_seed=seed):
                        records = runner.measure(
                            methods, case, number, noise_row=options.noise_row, limit=options.limit
                        )
                        # One line for all, so that an object is measured whole or not at all.
                        log.append([{"kind": "object", "guidance": guidance, "object_seed": seed, "methods": records}])
                bar.update(columns)
    scene_seeds = [seeds[0] + 900 + 10 * number for number in range(options.scenes)]
    scene_runner.measure_scenes(runner, methods, scene_seeds, options.guidance, log, make_scene)
    return result_of(log, seeds)


def _warm_up(
    runner: Runner, methods: list[Method], cases: Sequence[Case], options: BenchmarkOptions, log: RecordLog
) -> list[Method]:
    """Runs every method on the warm-up objects; returns those that this pipeline can run."""
    from tqdm import tqdm

    left_out: dict[str, str] = {}
    with guided(runner.pipeline, options.guidance[0]):
        taken: dict[tuple[str, int], Record] = {}
        # Controls last: they are matched to what the others took.
        order = sorted(methods, key=lambda m: m.matched_to is not None)
        for method in tqdm(order, desc="warm-up", file=sys.stderr, unit="method", leave=False):
            if method.matched_to in left_out:
                left_out[method.name] = f"{method.matched_to} was left out"
                continue
            try:
                for case in cases:
                    actual = method
                    if method.matched_to is not None:
                        actual = method.matched(runner.pipeline, taken[method.matched_to, case.seed])
                    taken[method.name, case.seed] = runner.run(actual, case)[1]
            except UserError as error:
                if not method.optional:
                    raise
                left_out[method.name] = str(error)
    for name, reason in left_out.items():
        print(f"bench: {name} is left out: {reason}", file=sys.stderr)
        if not log.select(kind="left_out", method=name):
            log.append([{"kind": "left_out", "method": name, "reason": reason}])
    return [method for method in methods if method.name not in left_out]


def identity_of(pipeline: Any, options: BenchmarkOptions, methods: Sequence[Method]) -> Record:
    """Collects what all records of a run share: everything that a measurement depends on."""
    chosen = asdict(options)
    for name in ("methods", "objects", "scenes", "output", "resume", "report", "document", "presets", "steps"):
        del chosen[name]
    described = {
        method.name: {"matched_to": method.matched_to} if method.matched_to else method.settings()
        for method in methods
        if not method.optional or _readable(method)
    }
    return {**chosen, **environment(pipeline, options.device), "methods": described}


def _readable(method: Method) -> bool:
    with suppress(UserError):
        method.settings()
        return True
    return False
