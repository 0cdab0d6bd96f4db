"""`python -m fastsam3d tune`: the cheapest setting of a pipeline within a quality budget, as a preset file.

Candidates are run on calibration objects, whose seeds no benchmark reaches, with the same noise as the untouched
pipeline. The budget is judged on means over those objects, at every guidance strength asked for, and the worst strength
counts: same-seed fidelity to "off", or to the converged solution (`judge=limit`, or `both`), and the drop of F1@0.05
and 3D-IoU against the truth. Cost is not seconds, which a busy machine disturbs, but operations: those of each stage,
priced with the seconds that an operation of this stage takes under `exact`; what takes clearly more processor time than
that is charged for it. Every measured object is appended to a log beside the preset, and the same command goes on where
it was interrupted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from fastsam3d.basics.record_log import Record, RecordLog
from fastsam3d.evaluation.measuring.provenance import environment
from fastsam3d.evaluation.tuning.calibration import Calibration
from fastsam3d.evaluation.tuning.options import TuneOptions
from fastsam3d.evaluation.tuning.search import Score, Search, Settings
from fastsam3d.evaluation.tuning.space import axes_of, complete, starts_of


def identity_of(pipeline: Any, options: TuneOptions) -> Record:
    """Collects what all records of a search share, without the budget and the limits."""
    kept = ("seed", "guidance", "device", "model", "checkpoint_dir", "judge")
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
    calibration = Calibration(pipeline, options, log or RecordLog(None, identity_of(pipeline, options)), make_view)
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
    """Lists the changed settings as key=value; a technique that was switched off as `-group`."""
    off = {key.partition(".")[0] for key in before} - {key.partition(".")[0] for key in after}
    changed = [f"{key}={value}" for key, value in after.items() if before.get(key) != value]
    return ", ".join([*(f"-{group}" for group in sorted(off)), *changed]) or "exact"
