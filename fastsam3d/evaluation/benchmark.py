"""Benchmark of acceleration methods: same objects, same noise, one process, methods interleaved.

What is timed is `pipeline.run`: seconds from image and mask in memory to mesh in memory, the device
synchronised at both ends. Attaching a method is not timed (it happens once in the life of a pipeline),
metrics are not timed. The order of methods rotates from object to object, so that a machine that grows warm
or busy favours nobody.

The judge is fidelity to the result of "off" for the same object and noise: with a generative model the truth
is only one of many plausible completions, and its metrics hardly tell methods apart. The row "other_seed"
shows how far two results of the untouched pipeline lie from one another.
"""

from __future__ import annotations

import hashlib
import logging
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fastsam3d.evaluation import methods as method_module
from fastsam3d.evaluation.benchmark_report import write_results
from fastsam3d.evaluation.methods import CONTROL, CONTROL_PARTNER, Method
from fastsam3d.evaluation.metrics import SURFACE_POINTS
from fastsam3d.evaluation.optional import require
from fastsam3d.evaluation.options import (
    boolean,
    describe_options,
    option,
    optional_text,
    parse_options,
    prepare_directory,
    strengths,
    whole,
    words,
)
from fastsam3d.evaluation.outcome import against_outcome, against_truth, outcome_of
from fastsam3d.evaluation.reference import reference_shape
from fastsam3d.evaluation.tables import summarise

logger = logging.getLogger(__name__)

COMMAND = "python -m fastsam3d bench"
HELD_OUT = 1_000_000_000
"""Objects from this seed on are never trained on."""
OTHER_SEED = "other_seed"
NOISE_SHIFT = 500_000_009
PROTOCOL = (
    "Seconds from image and mask in memory to mesh in memory, device synchronised, attaching and metrics "
    "excluded; one process, methods interleaved object by object in rotating order, warm-up objects "
    "excluded; same noise for every method. speedup: ratio of total seconds; cpu_speedup: of total "
    "processor seconds, which a busy machine disturbs less. cd, f1: {points} area-uniform surface points "
    "each, both surfaces normalised separately to [-1, 1] by bounding box, no alignment; cd is the mean "
    "of both directed mean distances, not squared; f1 in percent. viou: solids on a 64^3 grid in the "
    "object frame; surface_viou: 64^3 occupancy of the surface points. iou_3d: axis-aligned boxes of the "
    "posed objects in the camera frame. fidelity_* and layout_distance compare with off for the same "
    "object and noise; layout_distance is the root mean square displacement of the corners of off's box "
    "over its diagonal. *_ci: 95 % limits of the paired difference to off, of the mean itself for "
    "fidelity and layout. nfe: network evaluations, conditional and unconditional. fewer_steps: the "
    "fewest plain steps, object by object, that take at least as many network evaluations in each stage "
    "as balanced did; both stand on the exact tier."
)


@dataclass(frozen=True)
class BenchmarkOptions:
    """Options of the benchmark."""

    methods: tuple[str, ...] = option(
        ("off", "paper", "balanced", "fewer_steps"), words, "presets, and the control fewer_steps"
    )
    objects: int = option(16, whole(1), "number of held-out procedural objects")
    seed: int = option(7, whole(0), "chooses the objects and their noise")
    output: str = option("benchmark", str, "folder for bench.json, bench.md and plots")
    guidance: tuple[float | None, ...] = option((None,), strengths, "guidance strength, or a list; null: the model's")
    device: str = option("cpu", str, "cpu or cuda")
    model: str = option("mini", str, "model to load")
    checkpoint_dir: str | None = option(None, optional_text, "folder with weights; null: those of the package")
    random_weights: bool = option(False, boolean, "untrained weights: speed only, quality means nothing")
    noise_row: bool = option(True, boolean, "also run off with other noise, the scale of fidelity")
    warmup: int = option(1, whole(1), "objects run before anything is timed")
    points: int = option(SURFACE_POINTS, whole(100), "surface points of the metrics")


def object_seeds(seed: int, count: int, *, warmup: int = 0) -> tuple[list[int], list[int]]:
    """Seeds of the held-out objects that belong to a benchmark seed, and of its warm-up objects."""
    digest = hashlib.sha256(f"fastsam3d benchmark {seed}".encode()).digest()
    first = HELD_OUT + 1_000 * (1 + int.from_bytes(digest[:8], "big") % 500_000)
    return [first + i for i in range(count)], [first - 1 - i for i in range(warmup)]


def main(overrides: Sequence[str]) -> int:
    """The command `bench`: run, write bench.json, bench.md and plots, print the Markdown table."""
    if any(override in ("-h", "--help", "help") for override in overrides):
        print(describe_options(BenchmarkOptions, COMMAND))
        return 0
    options = parse_options(BenchmarkOptions, overrides, "bench")
    method_module.resolve_methods(options.methods)
    folder = prepare_directory(options.output, "bench")
    for module in ("scipy.spatial", "matplotlib.figure"):
        require(module)  # now, and not after an hour of measuring
    from fastsam3d.pipeline.loading import load_pipeline

    pipeline = load_pipeline(
        options.model,
        device=options.device,
        checkpoint_dir=options.checkpoint_dir,
        random_weights=options.random_weights,
    )
    result = run_benchmark(pipeline, options)
    print(write_results(result, folder), end="")
    return 0


def run_benchmark(
    pipeline: Any, options: BenchmarkOptions, make_view: Callable[[int], Any] | None = None
) -> dict[str, Any]:
    """Measure every method on every object.

    make_view: object seed -> view with `.object`, `.image`, `.mask`, `.pointmap`, `.pose`; procedural by
    default. Returns `{"rows": [...], "meta": {...}, "objects": [...]}` as bench.json has it.
    """
    if make_view is None:
        from fastsam3d.procedural import samples

        make_view = samples.make_view
    names = method_module.resolve_methods(options.methods)
    rows: list[dict[str, Any]] = []
    objects: list[dict[str, Any]] = []
    steps: dict[str, Any] = {}
    started = time.perf_counter()
    for guidance in options.guidance:
        with method_module.guided(pipeline, guidance):
            bench = _Benchmark(pipeline, options, make_view)
            chosen = bench.prepare(names)
            records = bench.measure(chosen, guidance)
            strength = _strength(pipeline)
        steps[strength] = {name: dict(method.overrides) for name, method in chosen.items() if method.overrides}
        for name, own in records.items():
            row = summarise(name, own, records["off"])
            rows.append({**row, "guidance": strength, "timed": name != OTHER_SEED})
        objects.extend({"method": name, "guidance": strength, **record} for name in records for record in records[name])
    meta = _meta(pipeline, options)
    meta.update(method_settings=steps, seconds_of_benchmark=time.perf_counter() - started)
    return {"rows": rows, "meta": meta, "objects": objects}


class _Benchmark:
    """The objects and the pipeline of one table."""

    def __init__(self, pipeline: Any, options: BenchmarkOptions, make_view: Callable[[int], Any]) -> None:
        self.pipeline, self.options, self.make_view = pipeline, options, make_view
        self.seeds, self.warmup_seeds = object_seeds(options.seed, options.objects, warmup=options.warmup)

    def prepare(self, names: Sequence[str]) -> dict[str, Method]:
        """Run every method once on the warm-up objects and settle the number of steps of the control."""
        chosen = {name: Method(name, name) for name in names if name != CONTROL}
        views = [self.make_view(seed) for seed in self.warmup_seeds]
        warm = [*chosen.values()]
        if CONTROL in names and CONTROL_PARTNER not in chosen:
            warm.append(Method(CONTROL_PARTNER, CONTROL_PARTNER))
        counts: dict[str, int] = {}
        for method in warm:
            for view, seed in zip(views, self.warmup_seeds, strict=True):
                _, record = self.run(method, view, seed)
                if method.name == CONTROL_PARTNER:
                    counts = {key: max(counts.get(key, 0), record[key]) for key in method_module.STAGES}
        if CONTROL in names:
            # The control belongs in its place among the rows, and it is warmed up like the others.
            control = method_module.fewer_steps_method(self.pipeline, counts)
            self.run(control, views[0], self.warmup_seeds[0])
            chosen = {name: control if name == CONTROL else chosen[name] for name in names}
        return chosen

    def measure(self, chosen: dict[str, Method], guidance: float | None) -> dict[str, list[dict[str, Any]]]:
        """Records of every method, object by object."""
        from tqdm import tqdm

        runs = [(name, method, 0) for name, method in chosen.items()]
        if self.options.noise_row:
            runs.append((OTHER_SEED, chosen["off"], NOISE_SHIFT))
        records: dict[str, list[dict[str, Any]]] = {name: [] for name, _, _ in runs}
        title = "bench" if guidance is None else f"bench, guidance {guidance:g}"
        with tqdm(total=len(runs) * len(self.seeds), desc=title, file=sys.stderr, unit="run") as bar:
            for number, seed in enumerate(self.seeds):
                view = self.make_view(seed)
                reference = reference_shape(view.object, points=self.options.points)
                outcomes: dict[str, Any] = {}
                own: dict[str, dict[str, Any]] = {}
                for name, method, shift in rotated(runs, number):
                    if name == CONTROL and CONTROL_PARTNER in own:
                        method = method_module.fewer_steps_method(self.pipeline, own[CONTROL_PARTNER])
                    outcomes[name], own[name] = self.run(method, view, seed, shift)
                    own[name].update(against_truth(outcomes[name], reference, view.pose))
                    bar.update()
                for name, done in records.items():
                    own[name].update(against_outcome(outcomes[name], outcomes["off"]))
                    own[name].update(object_seed=seed, family=reference.family)
                    done.append(own[name])
        return records

    def run(self, method: Method, view: Any, seed: int, shift: int = 0) -> tuple[Any, dict[str, Any]]:
        """One timed reconstruction, its mesh prepared for comparison."""
        with method.attached(self.pipeline), method_module.counted_evaluations(self.pipeline) as counts:
            synchronise(self.options.device)
            start, start_cpu = time.perf_counter(), time.process_time()
            result = self.pipeline.run(view.image, view.mask, seed=seed + shift, pointmap=view.pointmap)
            synchronise(self.options.device)
            seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
        record = {
            "seconds": seconds,
            "cpu_seconds": cpu_seconds,
            **counts,
            "stage_seconds": dict(result.stage_seconds),
        }
        return outcome_of(result, seed, self.options.points), record


def rotated(runs: Sequence[tuple[str, Method, int]], number: int) -> list[tuple[str, Method, int]]:
    """Runs of the object with this number: the order turns, but the control comes after what it is matched to."""
    turn = number % len(runs)
    order = [*runs[turn:], *runs[:turn]]
    places = {name: place for place, (name, _, _) in enumerate(order)}
    control, partner = places.get(CONTROL, len(order)), places.get(CONTROL_PARTNER, -1)
    if control < partner:
        order[control], order[partner] = order[partner], order[control]
    return order


def synchronise(device: str) -> None:
    """Wait until the device has done all its work."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize(device)


def _strength(pipeline: Any) -> str:
    """Guidance of both stages, "2" or "2/1" where they differ."""
    own = [pipeline.models[name].reverse_fn.strength for name in method_module.STAGES.values()]
    texts = [f"{s:g}" if isinstance(s, (int, float)) else str(dict(s)) for s in own]
    return "/".join(dict.fromkeys(texts))


def _meta(pipeline: Any, options: BenchmarkOptions) -> dict[str, Any]:
    import numpy
    import torch

    cuda = options.device.startswith("cuda")
    threads = torch.get_num_threads()
    name = torch.cuda.get_device_name(options.device) if cuda else f"CPU, {threads} thread{'s' * (threads != 1)}"
    versions = {"python": platform.python_version(), "torch": torch.__version__, "numpy": numpy.__version__}
    try:
        from importlib.metadata import version

        versions["fastsam3d"] = version("fastsam3d")
    except Exception:  # an uninstalled checkout has no version
        logger.debug("package version unknown", exc_info=True)
    steps = {stage: pipeline.models[stage].inference_steps for stage in method_module.STAGES.values()}
    return {
        **asdict(options),
        "device_name": name,
        "threads": threads,
        "platform": platform.platform(),
        "versions": versions,
        "steps": steps,
        "protocol": PROTOCOL.format(points=options.points),
    }
