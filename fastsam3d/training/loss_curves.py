"""Losses of a training run as curves.

    python -m fastsam3d loss-curves log=runs/ss_flow/losses.jsonl output=losses.png
    python -m fastsam3d loss-curves log=runs/slat_vae/losses.jsonl columns=[sdf,color] smooth=1
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastsam3d.basics.record_log import Record, json_lines
from fastsam3d.errors import UserError
from fastsam3d.evaluation.reporting.plot_style import INK, MUTED, figure_of, save, style

NOT_LOSSES = ("step", "seconds", "norm")
"""What a training log holds beside losses: what counts and times the steps, and the gradient's norm."""


def loss_curves(log: str | Path, path: str | Path, *, columns: Sequence[str] = (), smooth: int = 50) -> Path:
    """Draws losses over steps, on a logarithmic axis.

    Args:
        log: JSON lines with "step" and numbers. A line that is cut off, and a number that is not positive and finite,
            is passed over.
        path: PNG that is written.
        columns: names to draw; empty: all but `NOT_LOSSES`.
        smooth: records of the running mean; at most a tenth of a curve's.

    Raises:
        UserError: the log cannot be read, or no column has two numbers.
    """
    records = _records(Path(log))
    curves = {}
    for name in columns or sorted({name for record in records for name in record} - set(NOT_LOSSES)):
        points = [(record["step"], record[name]) for record in records if _is_positive(record.get(name))]
        if len(points) > 1:  # one alone is no curve: what a run measures once, at its end
            curves[name] = np.asarray(points, dtype=float).T
    if not curves:
        what = f"none of {', '.join(columns)}" if columns else "no losses"
        raise UserError(f"{log} has {what}: two lines of JSON or more with 'step' and positive numbers are needed.")
    figure = figure_of(8, 4.5)
    axes = figure.subplots()
    style(axes)
    for name, (steps, values) in curves.items():
        width = max(1, min(smooth, len(values) // 10))
        mean = np.convolve(values, np.ones(width) / width, mode="valid")
        axes.plot(steps[width - 1 :], mean, linewidth=1.4, label=name)
    axes.set_yscale("log")
    for ticks in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        ticks(lambda value, _: f"{value:g}")
    axes.tick_params(which="both", colors=MUTED, length=0)
    axes.set_xlabel("step", color=INK)
    axes.set_ylabel("loss", color=INK)
    axes.legend(frameon=False, fontsize=9)
    return save(figure, path)


def _records(log: Path) -> list[Record]:
    try:
        return [record for record in json_lines(log) if "step" in record]
    except OSError as error:
        raise UserError(f"Cannot read {log} ({error.strerror}): name the losses.jsonl of a training run.") from None


def _is_positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < float("inf")
