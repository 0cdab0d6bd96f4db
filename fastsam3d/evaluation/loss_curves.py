"""Losses of a training log as curves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastsam3d.errors import UserError
from fastsam3d.evaluation.plot_style import INK, figure_of, save, style

NOT_LOSSES = {"step", "norm", "seconds", "minutes", "samples", "rate", "lr", "learning_rate", "time", "epoch"}


def _is_positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < float("inf")


def loss_curves(log: str | Path, path: str | Path, *, columns: Sequence[str] | None = None, smooth: int = 50) -> Path:
    """Losses of a training log: JSON lines with "step" and numbers, where a line cut off is skipped.

    columns: names to draw; by default all positive numbers but those that count or time the training. smooth:
    records of the running mean. UserError if there is nothing to draw.
    """
    records = []
    for line in Path(log).read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    records = [record for record in records if isinstance(record, dict) and "step" in record]
    if columns is None:
        numbers = {name for record in records for name, value in record.items() if _is_positive(value)}
        columns = sorted(numbers - NOT_LOSSES)
    if not columns:
        raise UserError(f"{log} has no losses: lines of JSON with 'step' and numbers are needed")
    figure = figure_of(8, 4.5)
    axes = figure.subplots()
    style(axes)
    for name in columns:
        pairs = [(record["step"], record[name]) for record in records if _is_positive(record.get(name))]
        if not pairs:
            continue
        steps, values = np.asarray(pairs, dtype=float).T
        width = max(1, min(smooth, len(values) // 10))
        mean = np.convolve(values, np.ones(width) / width, mode="valid")
        axes.plot(steps[width - 1 :], mean, linewidth=1.4, label=name)
    axes.set_yscale("log")
    for ticks in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        ticks(lambda value, _: f"{value:g}")
    axes.set_xlabel("step", color=INK)
    axes.set_ylabel("loss", color=INK)
    axes.legend(frameon=False, fontsize=9)
    return save(figure, path)
