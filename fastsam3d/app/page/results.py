"""Describes a result for the page, as HTML text and as values for its script. Text from other sources is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from fastsam3d.app.page.fragments import address, notice, size_of
from fastsam3d.app.runs.comparison import OFF, Run
from fastsam3d.app.visitors.history import Finished
from fastsam3d.jobs.report import STAGE_NAMES

LOW_AGREEMENT = 0.5
"""Overlap of outline and mask below which the page warns."""
TRY_AGAIN = "Try more seeds (under “Seeds and settings”), or check the mask."


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
        parts.append(notice(f"{name} could not be reconstructed: {reason}"))
    if 0 < run.agreement < LOW_AGREEMENT:
        parts.append(notice(f"The outline agrees with the mask to {run.agreement:.0%} only. {TRY_AGAIN}", "advice"))
    parts += [notice(text, "advice") for text in run.warnings]
    return "".join(parts)


def table(finished: Finished) -> str:
    """Returns a table of seconds and network runs by stage, for the shown run and for `off`."""
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
        "<details><summary>Seconds and network runs of every stage</summary>"
        '<div class="scroll"><table class="report"><thead>'
        f'<tr><td></td><th colspan="{len(runs)}" scope="colgroup">seconds</th>'
        f'<th colspan="{len(runs)}" scope="colgroup">network runs</th></tr>'
        f'<tr><th scope="col">stage</th>{kinds}{kinds}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
        f'</details><p class="fine">{" ".join(_note(item) for item in runs)}</p>'
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
    """Returns links to every file: first the GLB, then the archive, then all other files.

    Args:
        folder: folder of the studio; addresses are relative to it.
    """
    files = finished.files
    run = finished.comparison.candidate(finished.selected)
    model = files.shown.get((run.preset, run.seed))
    first = [] if model is None else [_button("Download GLB", model, folder, "take")]
    first.append(_button("Everything (zip)", files.archive, folder, "take second"))
    groups: dict[str, list[Path]] = {}
    for path in files.files:
        groups.setdefault(path.parent.name if path.parent != files.folder else "", []).append(path)
    items = []
    for group in sorted(groups, key=lambda name: (name.startswith(OFF), name == "input", name == "", name)):
        links = "".join(
            f'<li><a href="{address(path, folder)}" download="{escape(group + "_" if group else "")}'
            f'{escape(path.name)}">{escape(path.name)}</a> <span>{size_of(path)}</span></li>'
            for path in groups[group]
        )
        items.append(f"<section><h4>{escape(group.replace('_', ' ') or 'report')}</h4><ul>{links}</ul></section>")
    return (
        f'<div class="downloads">{"".join(first)}<details><summary>Other formats and single files</summary>'
        f"{''.join(items)}</details></div>"
    )


def _button(text: str, path: Path, folder: Path, kind: str) -> str:
    return (
        f'<a class="{kind}" href="{address(path, folder)}" download="{escape(path.name)}">{text} '
        f"<span>{size_of(path)}</span></a>"
    )


def shown(finished: Finished, folder: Path, history: Sequence[Finished] = ()) -> dict[str, Any]:
    """Describes the content of the comparing viewer, as plain values for its script.

    Args:
        folder: folder of the studio; addresses are relative to it.
        history: all results of the session, newest last.
    """
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
        "photo": address(files.photo, folder),
        # Several objects are shown from where the picture was taken.
        "elevation": run.scene.camera_elevation() if len(run.scene.reconstructions) > 1 else None,
        "left": side(run),
        "right": side(comparison.plain.get(finished.selected)),
        "comparable": run.preset != OFF,
        "number": finished.number,
        "history": [_entry(item, folder) for item in history] if len(history) > 1 else [],
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


def _entry(item: Finished, folder: Path) -> dict[str, Any]:
    run = item.comparison.candidate(item.selected)
    return {
        "number": item.number,
        "text": f"{run.preset} · {run.seconds:.1f} s",
        "names": ", ".join(item.request.object_names),
        "photo": address(item.files.overlays[(run.preset, run.seed)], folder),
    }
