"""Tables of `busy_machine.py`: from single runs to medians, ratios and Markdown."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from busy_machine_worker import ONE, PYTORCH

from fastsam3d.basics.files import write_text
from fastsam3d.errors import UserError

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


@dataclass(frozen=True)
class Run:
    """One object by one method.

    Attributes:
        busy: processes that kept the machine busy.
        round: of all methods.
        seconds: wall clock of the run, from preprocessing to the surface; None: it was broken off.
        processor_seconds: CPU time of the process, all threads together, with the writing of files.
        threads: that the report names.
        others: cores that all other processes kept busy meanwhile, those above included.
    """

    busy: int
    method: str
    round: int
    seconds: float | None
    processor_seconds: float
    threads: str
    others: float | None


def summarise(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Medians, ranges and ratios of every method under every load; ratios are formed within a round."""
    rows = []
    for busy, method in dict.fromkeys((run.busy, run.method) for run in runs):
        own = [run for run in runs if (run.busy, run.method) == (busy, method)]
        timed = [run.seconds for run in own if run.seconds is not None]
        known = [run.others for run in own if run.others is not None]
        rows.append(
            {
                "busy": busy,
                "method": method,
                "runs": len(timed),
                "broken_off": len(own) - len(timed),
                "seconds": median(timed) if timed else None,
                "spread": [min(timed), max(timed)] if timed else None,
                "processor_seconds": median(run.processor_seconds for run in own),
                "threads": ", ".join(dict.fromkeys(run.threads for run in own if run.threads)),
                "others": median(known) if known else None,
                "to_pytorch": _ratio(own, runs, PYTORCH),
                "to_one": _ratio(own, runs, ONE),
            }
        )
    return rows


def _ratio(own: Sequence[Run], every: Sequence[Run], base: str) -> float | None:
    seconds = {(run.busy, run.round): run.seconds for run in every if run.method == base and run.seconds}
    pairs = [(run.seconds, seconds.get((run.busy, run.round))) for run in own]
    ratios = [one / other for one, other in pairs if one and other]
    return median(ratios) if ratios else None


def markdown(content: Mapping[str, Any]) -> str:
    """The table of a run."""
    environment, options = content["environment"], content["options"]
    lines = [
        f"{environment['cores']} cores, PyTorch {environment['torch']}, Linux; model {options['model']}, one object, "
        f"`{options['preset']}`; medians, methods interleaved, warm-up excluded.",
        "",
        "| busy processes | method | seconds | range | × PyTorch's defaults | × one thread | CPU seconds | threads | "
        "cores in use by others | runs |",
        "| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in content["summary"]:
        cells = [
            str(row["busy"]),
            row["method"],
            _number(row["seconds"]),
            "–".join(_number(value) for value in row["spread"] or ()),
            _number(row["to_pytorch"]),
            _number(row["to_one"]),
            _number(row["processor_seconds"]),
            row["threads"],
            _number(row["others"]),
            str(row["runs"]) + (f", {row['broken_off']} over {options['longest']} s" if row["broken_off"] else ""),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def write_between_markers(source: Path, target: Path) -> None:
    """Writes the table of a JSON file into a document, between its two markers.

    Raises:
        UserError: a file is missing, or the document has no markers.
    """
    try:
        content = json.loads(source.read_text(encoding="utf-8"))
        text = target.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {source} or {target} ({error}): give the JSON file of an earlier run.") from None
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UserError(f"{target} has no lines {BEGIN} and {END}: add them where the table belongs.")
    write_text(target, f"{before}{BEGIN}\n\n{markdown(content)}\n{END}{after}")
