"""Plot of the second judge: network evaluations against the distance to the limit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastsam3d.evaluation.benchmark.plots import CONTROL, colour_of
from fastsam3d.evaluation.reporting.plot_style import INK, MUTED, figure_of, label, save, style

Row = Mapping[str, Any]
PANELS = (
    ("limit_viou", "distance of the shape to the limit (1 - vIoU)"),
    ("limit_layout_distance", "distance of the layout to the limit"),
    ("limit_latent_error", "relative error of the latents"),
)


def distances(rows: Sequence[Row], path: str | Path) -> Path:
    """Network evaluations of both stages against three distances to the limit, one panel each; rows as in bench.json.

    Lower left is better. The dashed line is the distance of "off", which is an approximation as well: methods below it
    are more accurate than the pipeline that they accelerate.
    """
    figure = figure_of(12, 4.6)
    timed = [row for row in rows if row.get("timed", True)]
    known = [(name, title) for name, title in PANELS if _value(timed[0], name) is not None]
    labelled = []
    for axes, (name, title) in zip(figure.subplots(1, len(known), squeeze=False)[0], known, strict=True):
        style(axes)
        drawn = [row for row in timed if _value(row, name) is not None]
        spots = [(row["nfe_ss"] + row["nfe_slat"], _value(row, name) or 0.0) for row in drawn]
        for spot, row in zip(spots, drawn, strict=True):
            colour = colour_of(row["method"])
            axes.scatter(*spot, s=40, marker="D" if colour == CONTROL else "o", color=colour, zorder=3)
            if row["method"] == "off":
                axes.axhline(spot[1], color=MUTED, linewidth=1, linestyle=(0, (4, 4)))
        if all(distance > 0 for _, distance in spots):
            _logarithmic(axes)  # methods that draw another object lie far above all others
        axes.margins(0.14)
        axes.set_xlabel("network evaluations of both stages", color=INK)
        axes.set_title(title, color=INK, loc="left", fontsize=10)
        labelled.append((axes, spots, [row["method"] for row in drawn]))
    figure.draw_without_rendering()  # settles the layout, on which the places of the labels depend
    for axes, spots, names in labelled:
        label(axes, spots, names, colours=[colour_of(name) for name in names], size=8.5)
    return save(figure, path)


def _logarithmic(axes: Any) -> None:
    """Gives the vertical axis a logarithmic scale with the numbers 1, 2 and 5 of each decade."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


def _value(row: Row, name: str) -> float | None:
    """Distance of a row, smaller is better; None where a pipeline does not say."""
    value = row.get(name)
    if value is None or not math.isfinite(value):
        return None
    return 1 - value if name == "limit_viou" else value
