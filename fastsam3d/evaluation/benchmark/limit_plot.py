"""Plot of the second judge: network evaluations against the distance to the limit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastsam3d.evaluation.benchmark.plots import CONTROL, colour_of
from fastsam3d.evaluation.reporting.plot_style import INK, MUTED, figure_of, label, save, style

Row = Mapping[str, Any]
PANELS = (
    ("distance of the shape to the limit (1 - vIoU)", lambda row: 1 - row["limit_viou"]),
    ("distance of the layout to the limit", lambda row: row["limit_layout_distance"]),
    ("relative error of the latents", lambda row: row["limit_latent_error"]),
)


def distances(rows: Sequence[Row], path: str | Path) -> Path:
    """Network evaluations of both stages against three distances to the limit, one panel each; rows as in bench.json.

    Lower left is better. The dashed line is the distance of "off", which is an approximation as well: methods below it
    are more accurate than the pipeline that they accelerate.
    """
    figure = figure_of(12, 4.6)
    drawn = [row for row in rows if row.get("timed", True) and row.get("limit_viou") is not None]
    off = next(row for row in drawn if row["method"] == "off")
    labelled = []
    for axes, (title, value) in zip(figure.subplots(1, len(PANELS)), PANELS, strict=True):
        style(axes)
        spots = [(row["nfe_ss"] + row["nfe_slat"], value(row)) for row in drawn]
        for spot, row in zip(spots, drawn, strict=True):
            colour = colour_of(row["method"])
            axes.scatter(*spot, s=40, marker="D" if colour == CONTROL else "o", color=colour, zorder=3)
        axes.axhline(value(off), color=MUTED, linewidth=1, linestyle=(0, (4, 4)))
        axes.set_ylim(bottom=0)
        axes.margins(0.14)
        axes.set_xlabel("network evaluations of both stages", color=INK)
        axes.set_title(title, color=INK, loc="left", fontsize=10)
        labelled.append((axes, spots))
    figure.draw_without_rendering()  # settles the layout, on which the places of the labels depend
    names = [row["method"] for row in drawn]
    for axes, spots in labelled:
        label(axes, spots, names, colours=[colour_of(name) for name in names], size=8.5)
    return save(figure, path)
