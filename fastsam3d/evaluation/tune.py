"""`python -m fastsam3d tune`: the cheapest setting of a pipeline within a quality budget, as a preset file.

Candidates are run on calibration objects, whose seeds no benchmark reaches, with the same noise as the untouched
pipeline. The budget is judged on means over those objects, at every guidance strength asked for, and the worst strength
counts: same-seed fidelity to "off", and the drop of F1@0.05 and 3D-IoU against the truth. Cost is not seconds, which a
busy machine disturbs, but operations: those of each stage, priced with the seconds that an operation of this stage
takes under `exact`; what takes clearly more processor time than that is charged for it. Every measured object is
appended to a log beside the preset, and the same command goes on where it was interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastsam3d.errors import UserError
from fastsam3d.evaluation.benchmark import CALIBRATION, environment, object_seeds
from fastsam3d.evaluation.counting import STAGE_NAMES
from fastsam3d.evaluation.methods import EXACT, OFF, Method, guidance_of, guided
from fastsam3d.evaluation.optional import require
from fastsam3d.evaluation.options import (
    boolean,
    describe_options,
    number_from,
    option,
    optional_text,
    parse_options,
    prepare_directory,
    strengths,
    whole,
)
from fastsam3d.evaluation.outcome import Outcome, against_outcome, against_truth
from fastsam3d.evaluation.preset_file import preset_text
from fastsam3d.evaluation.records import Record, RecordLog
from fastsam3d.evaluation.runs import Case, Runner
from fastsam3d.evaluation.search import Score, Search, Settings
from fastsam3d.evaluation.tuning_space import axes_of, complete, starts_of
from fastsam3d.pipeline.files import write_atomically

COMMAND = "python -m fastsam3d tune"
POINTS = 10_000
"""Surface points of F1: a third of the benchmark's, because only differences between candidates matter."""
MARGIN = 0.25
"""In shares of the budget: a candidate that looks worse than this after some objects is given up."""
DEARER = 0.03
"""Share by which a candidate may look dearer than the best on some objects without being given up."""
TOLERANCE = 0.1
"""Share by which processor time may exceed what the operations predict, before it counts."""
PARTS = ("ss", "slat", "rest")


@dataclass(frozen=True)
class TuneOptions:
    """Options of the search."""

    target_f1_drop: float = option(0.5, number_from(0.0), "F1@0.05 (percent) that may be lost against the truth")
    target_fidelity: float = option(0.95, number_from(0.0, 1.0), "least mean vIoU with the result of off, same noise")
    target_iou_drop: float = option(0.01, number_from(0.0), "3D-IoU of the layout that may be lost")
    objects: int = option(8, whole(1), "number of calibration objects")
    seed: int = option(0, whole(0), "chooses the calibration objects; never those of a benchmark")
    guidance: tuple[float | None, ...] = option((None,), strengths, "guidance strength, or a list; all must hold")
    trials: int = option(80, whole(1), "candidates that are run at most")
    output: str = option("preset.yaml", str, "preset file to write; a log goes beside it")
    description: str | None = option(None, optional_text, "of the preset; null: the budget")
    device: str = option("cpu", str, "cpu or cuda")
    model: str = option("mini", str, "model to load")
    checkpoint_dir: str | None = option(None, optional_text, "folder with weights; null: those of the package")
    resume: bool = option(True, boolean, "go on from the log beside the output; false begins again")


def main(overrides: Sequence[str]) -> int:
    """The command `tune`: search, write the preset, print what was found."""
    if any(override in ("-h", "--help", "help") for override in overrides):
        print(describe_options(TuneOptions, COMMAND))
        return 0
    options = parse_options(TuneOptions, overrides, "tune")
    path = Path(options.output)
    if path.suffix not in (".yaml", ".yml"):
        raise UserError(f"tune: output={path} is no preset file: give a name that ends in .yaml")
    prepare_directory(path.parent, "tune")
    require("scipy.spatial")
    from fastsam3d.pipeline.loading import load_pipeline

    pipeline = load_pipeline(options.model, device=options.device, checkpoint_dir=options.checkpoint_dir)
    log = RecordLog(path.with_suffix(".jsonl"), identity_of(pipeline, options), resume=options.resume)
    try:
        settings, score = tune(pipeline, options, log, tell=lambda text: print(text, file=sys.stderr, flush=True))
    except KeyboardInterrupt:
        print(f"interrupted; what is measured is kept in {log.path}, and the same command goes on", file=sys.stderr)
        return 130
    command = " ".join([COMMAND, *overrides])
    text = preset_text(path.stem, settings, score, options, command, log.identity)
    write_atomically(path, text.encode())
    print(text, end="")
    return 0


def identity_of(pipeline: Any, options: TuneOptions) -> Record:
    """What all records of a search share; the budget and the limits are not among it."""
    kept = ("seed", "guidance", "device", "model", "checkpoint_dir")
    values = asdict(options)
    return {name: values[name] for name in kept} | environment(pipeline, options.device)


def tune(
    pipeline: Any,
    options: TuneOptions,
    log: RecordLog | None = None,
    make_view: Callable[[int], Any] | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> tuple[Settings, Score]:
    """The changed settings of `exact` that cost least within the budget, and their score.

    Raises:
        UserError: nothing lies within the budget.
    """
    if make_view is None:
        from fastsam3d.procedural import samples

        make_view = samples.make_view
    calibration = _Calibration(pipeline, options, log or RecordLog(None, identity_of(pipeline, options)), make_view)
    steps = calibration.steps
    axes = axes_of(*steps)
    tell(f"running off and exact on {options.objects} calibration objects")
    calibration.prepare()
    shown: list[Settings] = []  # all candidates; the last of those that were best is what changes are told against
    leader: Settings = {}

    def say(settings: Settings, score: Score, best: bool) -> None:
        shown.append(complete(settings, *steps))
        verdict = "best so far" if best else "given up" if not score.complete else "" if score.feasible else "too lossy"
        tell(f"{len(shown):3d}/{options.trials}  {describe(score)}  {verdict:11}  {changes(leader, shown[-1])}")
        if best:
            leader.clear()
            leader.update(shown[-1])

    def evaluate(settings: Settings, best: Score | None) -> Score:
        return calibration.score(complete(settings, *steps), best)

    search = Search(axes, evaluate, options.trials, say)
    point = search.run(starts_of(axes))
    assert search.score is not None
    return complete(search.settings(point), *steps), search.score


def describe(score: Score) -> str:
    """The figures of a score as one line."""
    details = score.details or {}
    return (
        f"{details['speedup']:5.2f}× of exact  fidelity {details['fidelity']:.3f}  "
        f"F1 {-details['f1_drop']:+.2f}  3D-IoU {-details['iou_drop']:+.4f}"
    )


def changes(before: Settings, after: Settings) -> str:
    """What tells settings from others, as key=value; a technique that was switched off as `-group`."""
    off = {key.partition(".")[0] for key in before} - {key.partition(".")[0] for key in after}
    changed = [f"{key}={value}" for key, value in after.items() if before.get(key) != value]
    return ", ".join([*(f"-{group}" for group in sorted(off)), *changed]) or "exact"


class _Calibration:
    """The calibration objects, what "off" and `exact` do on them, and the scoring of candidates."""

    def __init__(
        self, pipeline: Any, options: TuneOptions, log: RecordLog, make_view: Callable[[int], Any]
    ) -> None:
        self.options, self.log = options, log
        self.runner = Runner(pipeline, options.device, POINTS)
        seeds, _ = object_seeds(options.seed, options.objects, first_of_all=CALIBRATION)
        self.cases = [Case(seed, make_view, POINTS) for seed in seeds]
        self.baseline: dict[tuple[Any, int], tuple[Outcome, Record]] = {}
        self.exact_work: dict[str, float] = {}
        self.exact_cost = 1.0

    @property
    def steps(self) -> tuple[int, int]:
        """The pipeline's own numbers of steps."""
        models = self.runner.pipeline.models
        return models["ss_generator"].inference_steps, models["slat_generator"].inference_steps

    def prepare(self) -> None:
        """Run "off" everywhere, and settle what an operation of each stage costs under `exact`."""
        for strength in self.options.guidance:
            with guided(self.runner.pipeline, strength):
                for case in self.cases:
                    outcome, _ = self.runner.run(Method(OFF, OFF), case)
                    truth = against_truth(outcome, case.reference, case.view.pose, visual=False)
                    self.baseline[strength, case.seed] = outcome, truth
        exact = Method(EXACT, EXACT)
        self.runner.run(exact, self.cases[0])  # warm
        records = [self._record(exact, case) for case in self.cases]
        self.exact_work = _mean_work(records)
        self.exact_cost = sum(self.exact_work[f"seconds_{part}"] for part in PARTS)

    def score(self, settings: Settings, best: Score | None) -> Score:
        """Cost and quality of settings, given up as soon as they cannot or will hardly beat `best`."""
        method = Method("candidate", EXACT, settings)
        method.settings()  # refuses what is not possible together
        records: list[Record] = []
        slack, cost = 0.0, 0.0
        for case in self.cases:
            records.append(self._record(method, case))
            cost, slack = self._cost(records), self._slack(self._figures(records))
            left = len(self.cases) - len(records)
            # On the first objects quality may lie off the mean, so the bar is low there and rises.
            lossy = len(records) >= 2 and slack < -MARGIN * (1 + left / len(self.cases))
            dearer = best is not None and cost > best.cost * (1 + DEARER)
            if left and (lossy or dearer):
                break
        figures = self._figures(records)
        details = {**figures, "speedup": self.exact_cost / cost, "objects": len(records)}
        return Score(cost, slack, figures["fidelity"], len(records) == len(self.cases), details)

    def _cost(self, records: Sequence[Record]) -> float:
        """Predicted seconds an object: operations of each stage at the price that they have under `exact`.

        What takes clearly more processor time than its operations explain, is charged for it.
        """
        work, exact = _mean_work(records), self.exact_work
        predicted = sum(
            exact[f"seconds_{part}"] * (work[part] / exact[part] if exact[part] else 1.0) for part in PARTS
        )
        measured = self.exact_cost * work["cpu_seconds"] / max(exact["cpu_seconds"], 1e-9)
        return max(predicted, measured / (1 + TOLERANCE))

    def _record(self, method: Method, case: Case) -> Record:
        """Cost and quality on one object at every guidance strength, from the log where it was measured before."""
        known = {"kind": "candidate", "settings": dict(sorted(method.overrides.items())), "object_seed": case.seed}
        records = self.log.select(**known)
        if records:
            return records[0]
        values = {}
        for strength in self.options.guidance:
            with guided(self.runner.pipeline, strength):
                outcome, run = self.runner.run(method, case)
                name = str(guidance_of(self.runner.pipeline))
            off, off_truth = self.baseline[strength, case.seed]
            truth = against_truth(outcome, case.reference, case.view.pose, visual=False)
            values[name] = {
                **_work(run),
                **against_outcome(outcome, off, visual=False),
                "f1_drop": off_truth["f1_005"] - truth["f1_005"],
                "iou_drop": off_truth["iou_3d"] - truth["iou_3d"],
            }
        record = {**known, "values": values}
        self.log.append([record])
        return record

    def _figures(self, records: Sequence[Record]) -> dict[str, float]:
        """Means over objects, of the guidance strength at which they are worst."""
        strengths_ = records[0]["values"]

        def means(name: str) -> list[float]:
            return [float(np.mean([record["values"][key][name] for record in records])) for key in strengths_]

        return {
            "fidelity": min(means("fidelity_viou")),
            "f1_drop": max(means("f1_drop")),
            "iou_drop": max(means("iou_drop")),
            "layout_distance": max(means("layout_distance")),
        }

    def _slack(self, figures: Mapping[str, float]) -> float:
        """How far inside the budget, in shares of it; the tightest of the three counts."""
        options = self.options
        return min(
            (figures["fidelity"] - options.target_fidelity) / max(1 - options.target_fidelity, 1e-6),
            (options.target_f1_drop - figures["f1_drop"]) / max(options.target_f1_drop, 0.5),
            (options.target_iou_drop - figures["iou_drop"]) / max(options.target_iou_drop, 0.01),
        )


def _work(run: Record) -> dict[str, float]:
    """Operations of a run by part, with the seconds of the part; evaluations where operations are not known."""
    stages = run["stage_seconds"]
    seconds = [stages.get(stage, 0.0) for stage in STAGE_NAMES.values()]
    known = np.isfinite(run["tflop"])
    ss, slat = (run[f"tflop_{name}"] if known else run[f"nfe_{name}"] for name in STAGE_NAMES)
    return {
        "ss": ss,
        "slat": slat,
        "rest": run["tflop"] - ss - slat if known else 0.0,
        "seconds_ss": seconds[0],
        "seconds_slat": seconds[1],
        "seconds_rest": sum(stages.values()) - sum(seconds),
        "cpu_seconds": run["cpu_seconds"],
    }


def _mean_work(records: Sequence[Record]) -> dict[str, float]:
    """Means over objects and guidance strengths."""
    runs = [values for record in records for values in record["values"].values()]
    names = [*PARTS, *(f"seconds_{part}" for part in PARTS), "cpu_seconds"]
    return {name: float(np.mean([run[name] for run in runs])) for name in names}
