"""Draws the benchmark as one picture: the scores that remain, against the visual tokens that are left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastsam3d.evaluation.reporting.plot_style import ACCENT, INK, MUTED, figure_of, label, save, style

PREDICTED, ATTENDED, OTHERS = ACCENT, "#c2571a", MUTED
PUBLISHED = 98.8  # percent of the scores that the paper keeps at 90 %


def draw_scores(rows: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """Draws every row as a point and writes the picture.

    Raises:
        UserError: matplotlib is missing.
    """
    drawn = [row for row in rows if row["score_ratio"] == row["score_ratio"]]  # no number: no point
    figure = figure_of(9.0, 5.6)
    axes = figure.add_subplot()
    style(axes)
    spots = [(100 * row["pruned_share"], row["score_ratio"]) for row in drawn]
    colours = [_colour(row) for row in drawn]
    for row, (x, y), colour in zip(drawn, spots, colours, strict=True):
        low, high = row["score_ratio_ci"]
        axes.plot([x, x], [low, high], color=colour, linewidth=1.5, alpha=0.6)
        axes.plot([x], [y], "o", color=colour, markersize=6)
    axes.axhline(PUBLISHED, color=INK, linewidth=0.8, linestyle=":")
    axes.annotate(f"{PUBLISHED} %, Fast3D as published", (0, PUBLISHED), (2, -11), textcoords="offset points", size=8)
    axes.set_xlim(-4, 104)
    axes.set_xlabel("visual tokens left out, averaged over the layers (%)")
    axes.set_ylabel("scores, of those without pruning (%)")
    figure.canvas.draw()
    label(axes, spots, [row["method"] for row in drawn], colours=colours, size=8)
    return save(figure, path)


def _colour(row: Mapping[str, Any]) -> str:
    name = row["method"]
    if name == "off":
        return INK
    if name.startswith(("gap", "balanced")):
        return PREDICTED
    return ATTENDED if name.startswith(("fastv", "text_rows", "raters", "pyramid", "oracle")) else OTHERS
