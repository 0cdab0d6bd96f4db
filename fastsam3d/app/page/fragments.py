"""Pieces of the demo's page as HTML text. All text from other sources is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from urllib.parse import quote

from fastsam3d.app.runs.comparison import RunProgress
from fastsam3d.app.runs.queue import Job
from fastsam3d.app.visitors.picture import EXAMPLES
from fastsam3d.app.visitors.visitor import WRITING
from fastsam3d.jobs.report import STAGE_NAMES
from fastsam3d.sam3d.pipeline.timing import STAGES

RESULTS = "results"
"""First part of the addresses of result files."""
SMALL_MODEL = (
    "This page runs the small demonstration model, trained on synthetic toys: expect toys from it. For photographs "
    "start the page with <code>model=sam3d</code> and the official weights."
)
"""The page's sentence about the small model of this package; HTML."""


def notice(text: str | None, kind: str = "error") -> str:
    """Returns the HTML of a message to the visitor; empty without a message."""
    if not text:
        return ""
    role = "alert" if kind == "error" else "status"
    return f'<p class="notice {kind}" role="{role}">{escape(text)}</p>'


def notices(errors: Iterable[str], advice: Iterable[str] = ()) -> str:
    """Returns the HTML of several messages to the visitor, the errors first."""
    return "".join([*(notice(text) for text in errors), *(notice(text, "advice") for text in advice)])


def header(template: str, model: str | None) -> str:
    """Returns the top of the page.

    Args:
        template: HTML that contains `@model`.
        model: a sentence about the model, HTML; None says nothing.
    """
    return template.replace("@model", f'<p class="model">{model}</p>' if model else "")


def shelf(thumbnails: Mapping[str, str]) -> str:
    """Returns the HTML of buttons with the examples' pictures.

    Args:
        thumbnails: address of a small picture, by the name of the example.
    """
    buttons = "".join(
        f'<button type="button" data-example="{escape(name)}" title="Example: {escape(EXAMPLES[name])}">'
        f'<img src="{address}" alt=""><span>{escape(EXAMPLES[name])}</span></button>'
        for name, address in thumbnails.items()
    )
    return f'<span class="shelf"><span>or try</span>{buttons}</span>'


def waiting(job: Job) -> str:
    """Describes the progress of a job that has not ended: its place in the queue, or the stages of its run."""
    if job.state == "waiting":
        count = job.position
        text = f"{count} run{'s' if count != 1 else ''} before yours" if count else "starting"
        return _plain_progress("Waiting", text)
    at = job.progress
    clock = f"{job.seconds:.0f} s"
    if at == WRITING:
        return _plain_progress("Writing the files", clock)
    if not isinstance(at, RunProgress):
        return _plain_progress("Getting the model ready", clock)
    return _stages(at, clock)


def _plain_progress(text: str, clock: str) -> str:
    return f'<div class="progress" role="status"><p class="head"><b>{text}</b><span>{clock}</span></p></div>'


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


def address(path: Path, folder: Path) -> str:
    """Returns the address of a result file, relative to the page."""
    return f"{RESULTS}/{quote(path.relative_to(folder).as_posix())}"


def size_of(path: Path) -> str:
    """Returns the size of a file, for people."""
    size = path.stat().st_size
    return f"{size / 2**20:.1f} MiB" if size >= 2**20 else f"{max(1, round(size / 2**10))} KiB"
