"""Tables of `full_size.py`: from single runs to medians, ratios and Markdown."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from fastsam3d.basics.files import write_text
from fastsam3d.errors import UserError

UPSTREAM_LIKE = "upstream-like"
"""Method that the ratios are against."""
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


@dataclass(frozen=True)
class Run:
    """One object by one method.

    Attributes:
        method: preset, with `:8gb` for a memory budget, `:graphs` with CUDA graphs; `upstream-like` for the baseline.
        voxels, asked: of the latent stage before aggregation, and as asked for.
        round: 0 for the first run of a method at a size, which warms up.
        seconds: wall clock of the whole run, the device waited for.
        stage_seconds, stage_tflop, stage_memory: by stage; TFLOP counted, peak memory in bytes (CUDA only).
        voxels_kept: share that aggregation left.
        evaluations, tokens_kept: of the network, by sampled stage.
        faces: of the extracted surface.
        recording_seconds: with CUDA graphs, of the first object before this one, which recorded.
        notes: what the report says about savings that this pipeline allows or not.
    """

    method: str
    voxels: int
    asked: int
    round: int
    seconds: float
    stage_seconds: Mapping[str, float]
    stage_tflop: Mapping[str, float]
    stage_memory: Mapping[str, int]
    voxels_kept: float
    evaluations: Mapping[str, int]
    tokens_kept: Mapping[str, float]
    faces: int
    recording_seconds: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def tflop(self) -> float:
        """Operations of all stages, 10^12."""
        return sum(self.stage_tflop.values())


def console_line(run: Run) -> str:
    """One run for the terminal."""
    peak = f", peak {max(run.stage_memory.values()) / 2**30:.1f} GiB" if run.stage_memory else ""
    stages = ", ".join(f"{name} {seconds:.3f}" for name, seconds in run.stage_seconds.items())
    graphs = "".join(f" | {note}" for note in run.notes if "graphs" in note)
    if run.recording_seconds is not None:
        graphs += f", the first object, which recorded, {run.recording_seconds:.3f} s"
    return (
        f"round {run.round} {run.method} {run.voxels} voxels: {run.seconds:.3f} s, {run.tflop:.0f} TFLOP, "
        f"{run.tflop / run.seconds:.0f} TFLOP/s{peak}, evaluations {list(run.evaluations.values())}, "
        f"voxels kept {run.voxels_kept:.0%}, {run.faces} faces | {stages}{graphs}"
    )


def document(state: Any) -> dict[str, Any]:
    """Everything for the JSON file: settings, environment, single runs, and a summary by size and method."""
    runs: list[Run] = state.runs
    summary = [
        summarise([run for run in runs if (run.asked, run.method) == key], runs)
        for key in dict.fromkeys((run.asked, run.method) for run in runs)
    ]
    return asdict(state) | {"summary": summary}


def summarise(own: Sequence[Run], every: Sequence[Run]) -> dict[str, Any]:
    """Medians of one method at one size, over the rounds after the first where there are any."""
    timed = [run for run in own if run.round > 0] or list(own)
    ratios = []
    for run in timed:
        base = [r for r in every if (r.asked, r.round, r.method) == (run.asked, run.round, UPSTREAM_LIKE)]
        ratios += [r.seconds / run.seconds for r in base]
    last = timed[-1]
    stages = {
        name: {
            "seconds": median(run.stage_seconds.get(name, 0.0) for run in timed),
            "tflop": last.stage_tflop.get(name, 0.0),
            "peak_bytes": max((run.stage_memory.get(name, 0) for run in own), default=0),
        }
        for name in last.stage_seconds
    }
    seconds = median(run.seconds for run in timed)
    return {
        "method": last.method,
        "voxels": last.voxels,
        "asked": last.asked,
        "rounds": len(timed) if timed[0].round > 0 else 0,
        "seconds": seconds,
        "spread": [min(run.seconds for run in timed), max(run.seconds for run in timed)],
        "first_seconds": own[0].seconds if own[0].round == 0 else None,
        "graphs": _graphs(timed),
        "ratio": median(ratios) if ratios else None,
        "tflop": last.tflop,
        "tflops": last.tflop / seconds,
        "peak_bytes": max((stage["peak_bytes"] for stage in stages.values()), default=0),
        "voxels_kept": last.voxels_kept,
        "evaluations": dict(last.evaluations),
        "tokens_kept": dict(last.tokens_kept),
        "stages": stages,
    }


def _graphs(timed: Sequence[Run]) -> str | None:
    """What CUDA graphs did, in words; None where they were not asked for."""
    recording = [run.recording_seconds for run in timed if run.recording_seconds is not None]
    if not recording:
        return None
    notes = [note for note in timed[-1].notes if "CUDA graphs" in note]
    return "; ".join([*notes, f"the first object, which records, {median(recording):.2f} s"])


def markdown(content: Mapping[str, Any]) -> str:
    """The tables of a run."""
    environment, options = content["environment"], content["options"]
    lines = [
        f"{environment.get('device', 'cpu')}, PyTorch {environment.get('torch')}"
        + (f", CUDA {environment['cuda']}" if environment.get("cuda") else "")
        + f"; model {options['model']}, {options['precision']}, formats {', '.join(options['formats'])}.",
        "",
    ]
    for asked in dict.fromkeys(row["asked"] for row in content["summary"]):
        rows = [row for row in content["summary"] if row["asked"] == asked]
        lines += [f"**{rows[0]['voxels']:,} voxels**", "", *_methods(rows), "", *_stages(rows), ""]
        graphs = [f"- {row['method']}: {row['graphs']}" for row in rows if row.get("graphs")]
        lines += [*graphs, ""] if graphs else []
    lines += _probes(content.get("probes", {}))
    for failure in content.get("failures", []):
        reason = failure["error"].splitlines()[-1]
        lines.append(f"- failed: {failure['method']} at {failure['voxels']} voxels ({reason})")
    if content.get("unfinished"):
        lines.append(f"- the time budget ended before {content['unfinished']}")
    return "\n".join(lines).rstrip() + "\n"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    rule = ["---"] + ["---:"] * (len(header) - 1)
    return [f"| {' | '.join(row)} |" for row in (header, rule, *rows)]


def _methods(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    header = (
        "method", "s / object", "range", "first run", "× upstream-like", "TFLOP", "TFLOP/s", "peak GiB",
        "evaluations", "voxels kept", "rounds",
    )  # fmt: skip
    cells = [
        [
            row["method"],
            f"{row['seconds']:.2f}",
            "–".join(f"{value:.2f}" for value in row["spread"]),
            "" if row["first_seconds"] is None else f"{row['first_seconds']:.2f}",
            "" if row["ratio"] is None else f"{row['ratio']:.2f}",
            f"{row['tflop']:.1f}",
            f"{row['tflops']:.0f}",
            f"{row['peak_bytes'] / 2**30:.1f}" if row["peak_bytes"] else "",
            " + ".join(str(count) for count in row["evaluations"].values()),
            f"{row['voxels_kept']:.0%}",
            str(row["rounds"]),
        ]
        for row in rows
    ]
    return _table(header, cells)


def _stages(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    names = list(dict.fromkeys(name for row in rows for name in row["stages"]))
    cells = []
    for name in names:
        line = [name]
        for row in rows:
            stage = row["stages"].get(name)
            if stage is None:
                line.append("")
                continue
            parts = [f"{stage['seconds']:.3f} s"]
            if stage["tflop"]:
                parts.append(f"{stage['tflop'] / max(stage['seconds'], 1e-9):.0f} TFLOP/s")
            if stage["peak_bytes"]:
                parts.append(f"{stage['peak_bytes'] / 2**30:.1f} GiB")
            line.append(", ".join(parts))
        cells.append(line)
    return _table(("stage", *(row["method"] for row in rows)), cells)


def _probes(probes: Mapping[str, Any]) -> list[str]:
    lines = []
    for name, values in probes.items():
        shown = []
        for key, value in values.items():
            if isinstance(value, Mapping):
                value = ", ".join(f"{number:.3g} {unit}" for unit, number in value.items())
            shown.append(f"{key}: {value:.3g}" if isinstance(value, float) else f"{key}: {value}")
        lines.append(f"- {name}: {'; '.join(shown)}")
    return [*lines, ""] if lines else []


def write_between_markers(source: Path, target: Path, tables: Callable[[Mapping[str, Any]], str] = markdown) -> Path:
    """Writes the tables of a JSON file into a document, between its two markers.

    Args:
        source: the JSON file.
        target: the document.
        tables: makes them from the content of the file.

    Raises:
        UserError: a file is missing, or the document has no markers.
    """
    try:
        content = json.loads(source.read_text(encoding="utf-8"))
        text = target.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {source} or {target} ({error}); give the JSON file of an earlier run.") from None
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UserError(f"{target} has no lines {BEGIN} and {END} to write between.")
    write_text(target, f"{before}{BEGIN}\n\n{tables(content)}\n{END}{after}")
    return target
