"""Cost and quality of candidate settings on calibration objects, as `tune` judges them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from fastsam3d.basics.record_log import Record, RecordLog
from fastsam3d.evaluation.measuring.counters import STAGE_NAMES
from fastsam3d.evaluation.measuring.methods import EXACT, LIMIT, OFF, Method, guidance_of, guided
from fastsam3d.evaluation.measuring.runner import Case, Runner
from fastsam3d.evaluation.measuring.seeds import CALIBRATION, object_seeds
from fastsam3d.evaluation.metrics.outcome import Outcome, against_limit, against_outcome, against_truth
from fastsam3d.evaluation.tuning.options import TuneOptions
from fastsam3d.evaluation.tuning.search import Score, Settings

POINTS = 10_000
"""Surface points of F1: a third of the benchmark's, because only differences between candidates matter."""
MARGIN = 0.25
"""In shares of the budget: a candidate that looks worse than this after some objects is given up."""
DEARER = 0.03
"""Share by which a candidate may look dearer than the best on some objects without being given up."""
TOLERANCE = 0.2
"""Share by which processor time may exceed what the operations predict, before it counts."""
PARTS = ("ss", "slat", "rest")


class Calibration:
    """Scores candidates on the calibration objects, against the results of "off" and `exact` there."""

    def __init__(self, pipeline: Any, options: TuneOptions, log: RecordLog, make_view: Callable[[int], Any]) -> None:
        self.options, self.log = options, log
        self.runner = Runner(pipeline, options.device, POINTS)
        seeds, _ = object_seeds(options.seed, options.objects, first_of_all=CALIBRATION)
        self.cases = [Case(seed, make_view, POINTS) for seed in seeds]
        self.baseline: dict[tuple[Any, int], tuple[Outcome, Record]] = {}
        self.limits: dict[tuple[Any, int], Outcome] = {}
        self.exact_records: list[Record] = []
        self.prices: dict[str, float] = {}
        self.exact_cost = 1.0

    @property
    def steps(self) -> tuple[int, int]:
        """The pipeline's own numbers of steps."""
        models = self.runner.pipeline.models
        return models["ss_generator"].inference_steps, models["slat_generator"].inference_steps

    def prepare(self) -> None:
        """Runs "off" everywhere, and the limit where it judges, and finds the cost of operations under `exact`."""
        for strength in self.options.guidance:
            with guided(self.runner.pipeline, strength):
                for case in self.cases:
                    outcome, _ = self.runner.run(Method(OFF, OFF), case)
                    truth = against_truth(outcome, case.reference, case.view.pose, visual=False)
                    self.baseline[strength, case.seed] = outcome, truth
                    if self.options.judge != OFF:
                        self.limits[strength, case.seed] = self.runner.run(Method(LIMIT, LIMIT), case)[0]
        exact = Method(EXACT, EXACT)
        self.runner.run(exact, self.cases[0])  # warm
        self.exact_records = [self._record(exact, case) for case in self.cases]
        work = _mean_work(self.exact_records)
        self.prices = {part: work[f"seconds_{part}"] for part in PARTS}
        self.exact_cost = sum(self.prices.values())

    def score(self, settings: Settings, best: Score | None) -> Score:
        """Cost and quality of settings, given up as soon as they cannot or will hardly beat `best`."""
        method = Method("candidate", EXACT, settings)
        method.settings()  # refuses what is not possible together
        records: list[Record] = []
        slack, cost = 0.0, 0.0
        figures: dict[str, float] = {}
        for case in self.cases:
            records.append(self._record(method, case))
            figures = self._figures(records)
            cost, slack = self._cost(records), self._slack(figures)
            left = len(self.cases) - len(records)
            # On the first objects quality may lie off the mean, so the bar is low there and rises. Metrics against
            # the truth vary too much from object to object to say anything early.
            lossy = len(records) >= 2 and self._fidelity_slack(figures) < -MARGIN * (1 + left / len(self.cases))
            dearer = best is not None and cost > best.cost * (1 + DEARER)
            if left and (lossy or dearer):
                break
        details = {**figures, "speedup": self.exact_cost / cost, "objects": len(records)}
        return Score(cost, slack, figures["fidelity"], len(records) == len(self.cases), details)

    def _cost(self, records: Sequence[Record]) -> float:
        """Predicted seconds an object: operations of each stage at the price that they have under `exact`.

        What takes clearly more processor time than its operations explain, is charged for it. Compared are the same
        objects: they differ in size far more than settings do in cost.
        """
        work, exact = _mean_work(records), _mean_work(self.exact_records[: len(records)])
        predicted = sum(
            price * (work[part] / exact[part] if exact[part] else 1.0) for part, price in self.prices.items()
        )
        # The least ratio of all objects: a burst of load on one of them is no overhead.
        ratios = [
            _mean_work([own])["cpu_seconds"] / max(_mean_work([plain])["cpu_seconds"], 1e-9)
            for own, plain in zip(records, self.exact_records, strict=False)
        ]
        measured = self.exact_cost * min(ratios)
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
            limit = self.limits.get((strength, case.seed))
            values[name] = {
                **work_of(run),
                **against_outcome(outcome, off, visual=False),
                **({} if limit is None else against_limit(outcome, limit)),
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

        judged = {OFF: ["fidelity_viou"], LIMIT: ["limit_viou"], "both": ["fidelity_viou", "limit_viou"]}
        return {
            "fidelity": min(min(means(name)) for name in judged[self.options.judge]),
            "f1_drop": max(means("f1_drop")),
            "iou_drop": max(means("iou_drop")),
            "layout_distance": max(means("layout_distance")),
        }

    def _slack(self, figures: Mapping[str, float]) -> float:
        """Measures how far a score is inside the budget, in shares of it; the tightest of the three counts."""
        options = self.options
        return min(
            self._fidelity_slack(figures),
            (options.target_f1_drop - figures["f1_drop"]) / max(options.target_f1_drop, 0.5),
            (options.target_iou_drop - figures["iou_drop"]) / max(options.target_iou_drop, 0.01),
        )

    def _fidelity_slack(self, figures: Mapping[str, float]) -> float:
        return (figures["fidelity"] - self.options.target_fidelity) / max(1 - self.options.target_fidelity, 1e-6)


def work_of(run: Record) -> dict[str, float]:
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
