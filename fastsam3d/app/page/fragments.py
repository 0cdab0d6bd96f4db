"""Pieces of the demo's page as HTML text. All text that comes from elsewhere is escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fastsam3d.app.runs.comparison import OFF, Run, RunProgress
from fastsam3d.app.runs.queue import Job
from fastsam3d.app.visitors.visitor import EXAMPLES, Finished
from fastsam3d.jobs.report import STAGE_NAMES
from fastsam3d.sam3d.pipeline.timing import STAGES

RESULTS = "results"
"""First part of the addresses of result files."""


def notice(text: str | None, kind: str = "error") -> str:
    """A message to the visitor, or nothing."""
    if not text:
        return ""
    role = "alert" if kind == "error" else "status"
    return f'<p class="notice {kind}" role="{role}">{escape(text)}</p>'


def shelf(thumbnails: Mapping[str, str]) -> str:
    """Buttons with the examples' pictures.

    Args:
        thumbnails: address of a small picture by name of the example.
    """
    buttons = "".join(
        f'<button type="button" data-example="{escape(name)}" title="Example: {escape(EXAMPLES[name])}">'
        f'<img src="{address}" alt=""><span>{escape(EXAMPLES[name])}</span></button>'
        for name, address in thumbnails.items()
    )
    return f'<span class="shelf"><span>or try</span>{buttons}</span>'


def waiting(job: Job) -> str:
    """Progress of a job that has not ended: its place in the queue, or the stages of its run."""
    if job.state == "waiting":
        count = job.position
        text = f"{count} run{'s' if count != 1 else ''} before yours" if count else "starting"
        return f'<div class="progress" role="status"><p class="head"><b>Waiting</b><span>{text}</span></p></div>'
    at = job.progress
    clock = f"{job.seconds:.0f} s"
    if not isinstance(at, RunProgress):
        return (
            '<div class="progress" role="status"><p class="head"><b>Getting the model ready</b>'
            f"<span>{clock}</span></p></div>"
        )
    return _stages(at, clock)


def _stages(at: RunProgress, clock: str) -> str:
    where = [f"Running {at.preset}"]
    if at.runs > 1:
        where.append(f"run {at.run + 1} of {at.runs}, seed {at.seed}")
    if at.items > 1:
        where.append(f"object {at.item + 1} of {at.items}")
    position = STAGES.index(at.stage) if at.stage in STAGES else 0
    rows = []
    for index, name in enumerate(STAGES):
        if name == "gaussian_decode" and at.stage != name:
            continue
        share = 1.0 if index < position else at.done / max(at.total, 1) if index == position else 0.0
        state = "done" if index < position else "now" if index == position else "later"
        count = f"{at.done}/{at.total}" if state == "now" and at.total > 1 else ""
        rows.append(
            f'<li class="{state}"><span>{escape(STAGE_NAMES.get(name, name))}</span>'
            f'<i><b style="width:{share:.0%}"></b></i><em>{count}</em></li>'
        )
    head = f"<b>{escape(where[0])}</b><span>{escape(' · '.join([*where[1:], clock]))}</span>"
    return f'<div class="progress" role="status"><p class="head">{head}</p><ol>{"".join(rows)}</ol></div>'


def headline(finished: Finished) -> str:
    """Sums up in one sentence how much faster the run was, and what went wrong on the way."""
    run = finished.comparison.candidate(finished.selected)
    plain = finished.comparison.plain.get(finished.selected)
    if plain is not None:
        factor = plain.seconds / max(run.seconds, 1e-9)
        how = f"{factor:.1f}× as fast as" if factor >= 1 else f"{1 / factor:.1f}× slower than"
        text = f"<b>{how} off</b> {run.seconds:.2f} s instead of {plain.seconds:.2f} s"
    else:
        text = f"<b>{run.seconds:.2f} s</b> with {escape(run.preset)}"
    parts = [f'<p class="headline">{text}</p>']
    for name, reason in run.scene.failures.items():
        number = int(name.rpartition("_")[2]) + 1
        parts.append(notice(f"Object {number} could not be reconstructed: {reason}"))
    parts += [notice(text, "advice") for text in run.warnings]
    return "".join(parts)


def table(finished: Finished) -> str:
    """Seconds and network runs by stage, of the run that is shown and of `off` beside it."""
    run = finished.comparison.candidate(finished.selected)
    plain = finished.comparison.plain.get(finished.selected)
    runs = [run] + ([plain] if plain is not None else [])
    names = list(dict.fromkeys(name for item in runs for name in item.report.seconds))
    kinds = "".join(f'<th scope="col">{escape(item.preset)}</th>' for item in runs)
    rows = []
    for name in names:
        seconds = [item.report.seconds.get(name) for item in runs]
        stages = [item.report.stages.get(name) for item in runs]
        rows.append(
            _row(
                STAGE_NAMES.get(name, name),
                ["" if value is None else f"{value:.3f}" for value in seconds],
                ["" if stage is None else _counts(stage.evaluations, stage.forecast) for stage in stages],
            )
        )
    totals = [item.report.stages.values() for item in runs]
    rows.append(
        _row(
            "total",
            [f"{item.seconds:.2f}" for item in runs],
            [_counts(sum(s.evaluations for s in stages), sum(s.forecast for s in stages)) for stages in totals],
            "total",
        )
    )
    return (
        '<div class="scroll"><table class="report"><thead>'
        f'<tr><td></td><th colspan="{len(runs)}" scope="colgroup">seconds</th>'
        f'<th colspan="{len(runs)}" scope="colgroup">network runs</th></tr>'
        f'<tr><th scope="col">stage</th>{kinds}{kinds}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
        f'<p class="fine">{" ".join(_note(item) for item in runs)}</p>'
    )


def _counts(computed: int, forecast: int) -> str:
    return f"{computed} <small>+ {forecast} forecast</small>" if forecast else str(computed)


def _row(name: str, seconds: Sequence[str], counts: Sequence[str], kind: str = "") -> str:
    values = "".join(f"<td>{value}</td>" for value in (*seconds, *counts))
    return f'<tr class="{kind}"><th scope="row">{escape(name)}</th>{values}</tr>'


def _note(run: Run) -> str:
    report, parts = run.report, []
    faces = sum(len(item.mesh.faces) for item in run.scene.reconstructions if item.mesh is not None)
    if faces:
        parts.append(f"{faces:,} faces")
    if report.voxels_before and report.voxels_after != report.voxels_before:
        parts.append(f"voxels {report.voxels_before:,} merged to {report.voxels_after:,}")
    parts.append(f"outline agrees with the mask to {run.agreement:.0%}")
    return f"{escape(run.preset)}: {', '.join(parts)}."


def downloads(finished: Finished, folder: Path) -> str:
    """Links to every file, the archive first.

    Args:
        folder: the studio's, which addresses are relative to.
    """
    files = finished.files
    whole = (
        f'<a class="take" href="{address(files.archive, folder)}" download="{files.archive.name}">'
        f"Download everything <span>zip, {_size(files.archive)}</span></a>"
    )
    groups: dict[str, list[Path]] = {}
    for path in files.files:
        groups.setdefault(path.parent.name if path.parent != files.folder else "", []).append(path)
    items = []
    for group in sorted(groups, key=lambda name: (name.startswith(OFF), name == "input", name == "", name)):
        links = "".join(
            f'<li><a href="{address(path, folder)}" download="{group + "_" if group else ""}{path.name}">{path.name}'
            f"</a> <span>{_size(path)}</span></li>"
            for path in groups[group]
        )
        items.append(f"<section><h4>{escape(group.replace('_', ' ') or 'report')}</h4><ul>{links}</ul></section>")
    return f'<div class="downloads">{whole}<details><summary>Single files</summary>{"".join(items)}</details></div>'


def shown(finished: Finished, folder: Path) -> dict[str, Any]:
    """Describes what the comparing viewer shows, as plain values for its script."""
    comparison, files = finished.comparison, finished.files
    best = comparison.candidates[comparison.best].seed

    def side(run: Run | None) -> dict[str, Any] | None:
        if run is None:
            return None
        path = files.shown.get((run.preset, run.seed))
        photo = files.overlays.get((run.preset, run.seed))
        return {
            "name": run.preset,
            "time": f"{run.seconds:.2f} s",
            "model": None if path is None else address(path, folder),
            "photo": None if photo is None else address(photo, folder),
        }

    run = comparison.candidate(finished.selected)
    return {
        "key": files.folder.name,
        "seed": finished.selected,
        "scene": len(run.scene.reconstructions) > 1,
        "left": side(run),
        "right": side(comparison.plain.get(finished.selected)),
        "comparable": run.preset != OFF,
        "candidates": [
            {
                "seed": item.seed,
                "agreement": f"{item.agreement:.0%}",
                "best": item.seed == best,
                "photo": address(files.overlays[(item.preset, item.seed)], folder),
            }
            for item in (comparison.candidates if len(comparison.candidates) > 1 else ())
        ],
    }


def address(path: Path, folder: Path) -> str:
    """Address of a result file, relative to the page."""
    return f"{RESULTS}/{quote(path.relative_to(folder).as_posix())}"


def _size(path: Path) -> str:
    size = path.stat().st_size
    return f"{size / 2**20:.1f} MiB" if size >= 2**20 else f"{max(1, round(size / 2**10))} KiB"
