"""Plots of a benchmark: Pareto front, seconds by stage, sweep curves.

A method has the same colour in every picture, and its name stands at its points, not in a legend.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastsam3d.evaluation.benchmark.experiments import SWEEPS, point_of
from fastsam3d.evaluation.reporting.plot_style import (
    ACCENT,
    GRID,
    INK,
    MUTED,
    figure_of,
    label,
    label_ends,
    save,
    style,
)
from fastsam3d.evaluation.reporting.tables import guidance_text

Row = Mapping[str, Any]

OURS, EXACT, PAPER, RIVAL, CONTROL, FREE = ACCENT, "#1f8f5f", "#c2571a", "#8b6fb5", MUTED, "#a3336b"
RELEASED = "#dd9a55"
COLOURS = {
    "off": INK,
    "exact": EXACT,
    "accurate": OURS,
    "balanced": OURS,
    "fast": OURS,
    "exact_layout": OURS,
    "paper": PAPER,
    "paper_release": RELEASED,
}
"""Our presets, the published ones and the exact tier; rivals and controls have one colour each kind."""
STAGE_COLOURS = {
    "preprocess": "#b4bcc4",
    "ss_condition": "#d9c28a",
    "sparse_structure": "#0b3a66",
    "ss_decode": "#62a8ea",
    "slat_condition": "#f3cf85",
    "structured_latent": "#0b6bcb",
    "mesh_decode": "#e09f1f",
    "surface": "#8a5a00",
    "gaussian_decode": "#1f8f5f",
    "picture_colors": "#9b59b6",
}
PANELS = (
    # The least height of a panel, so that differences that are nothing do not fill it.
    ("fidelity_viou", "fidelity to off (vIoU)", 0.05),
    ("f1_005", "F1@0.05 against truth (%)", 4.0),
    ("iou_3d", "3D-IoU against truth", 0.05),
)


def colour_of(method: str) -> str:
    """Colour of a method, of a row of a sweep that of its preset."""
    point = point_of(method)
    name = point[0] if point else method
    if name.startswith("fewer_steps") or name == "few_step_shortcut":
        return CONTROL
    return COLOURS.get(name, RIVAL)


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points that no other beats, by first coordinate; in both larger is better."""
    best, front = -np.inf, []
    for index in sorted(range(len(points)), key=lambda i: (-points[i][0], -points[i][1])):
        if points[index][1] > best:
            best = points[index][1]
            front.append(index)
    return front[::-1]


def pareto(rows: Sequence[Row], path: str | Path) -> Path:
    """Speed-up against fidelity, F1 and 3D-IoU, one panel each; rows as in bench.json.

    The line joins the methods that no other beats in both; whiskers are the 95 % limits where they are of the value
    itself; the dashed line in the first panel is the fidelity that another seed has, the scale of what does not matter.
    """
    figure = figure_of(10, 11)
    timed = [row for row in rows if row.get("timed", True)]
    noise = next((row for row in rows if row["method"] == "other_seed"), None)
    labelled = []
    grid = figure.add_gridspec(2, 2, height_ratios=(1.35, 1))
    places = (grid[0, :], grid[1, 0], grid[1, 1])
    for place, (column, name, least) in zip(places, PANELS, strict=True):
        axes = figure.add_subplot(place)
        style(axes)
        drawn = [row for row in timed if _is_number(row.get(column))]
        spots = [(row["speedup"], row[column]) for row in drawn]
        front = pareto_front(spots)
        axes.plot(*zip(*[spots[i] for i in front], strict=True), color=MUTED, linewidth=1, alpha=0.5)
        for spot, row in zip(spots, drawn, strict=True):
            colour = colour_of(row["method"])
            if column == "fidelity_viou":
                _whisker(axes, spot, row, colour)
            marker = "D" if colour == CONTROL else "o"
            axes.scatter(*spot, s=44 if marker == "o" else 34, marker=marker, color=colour, zorder=3)
        labelled.append((axes, spots, [row["method"] for row in drawn]))
        axes.set_xlabel("speed-up over off (×)", color=INK)
        axes.set_title(name, color=INK, loc="left", fontsize=11)
        axes.margins(0.14)
        low, high = axes.get_ylim()
        if column == "fidelity_viou":
            _stretch_towards_one(axes, min([value for _, value in spots], default=0.0))
        elif high - low < least:
            axes.set_ylim((low + high - least) / 2, (low + high + least) / 2)
        if column == "fidelity_viou" and noise is not None and _is_number(noise.get(column)):
            _noise_line(axes, noise[column], visible=axes.get_ylim()[0] < noise[column])
    figure.draw_without_rendering()  # settles the layout, on which the places of the labels depend
    for index, (axes, spots, names) in enumerate(labelled):
        label(axes, spots, names, colours=[colour_of(name) for name in names], size=8.5 if index else 9.5)
    return save(figure, path)


def _stretch_towards_one(axes: Any, lowest: float) -> None:
    """A scale on which a fidelity of 0.97 and one of 0.98 lie apart though others lie far below: that of the root."""

    def forward(values: Any) -> Any:
        loss = 1 - np.asarray(values, dtype=float)
        return -np.sign(loss) * np.sqrt(np.abs(loss))

    def backward(values: Any) -> Any:
        places = np.asarray(values, dtype=float)
        return 1 + np.sign(places) * places**2

    axes.set_yscale("function", functions=(forward, backward))
    loss = max(1 - lowest, 0.02)
    axes.set_ylim(1 - 1.2 * loss, 1 + 0.004 * loss)
    steps = (0.0, 0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    shown = [step for step in steps if step <= 1.2 * loss and (step == 0 or step >= loss / 40)]
    axes.set_yticks([1 - step for step in shown], [f"{1 - step:g}" for step in shown])


def _whisker(axes: Any, spot: tuple[float, float], row: Row, colour: str) -> None:
    limits = row.get("fidelity_viou_ci")
    if limits and all(_is_number(limit) for limit in limits):
        axes.plot([spot[0]] * 2, limits, color=colour, linewidth=1.2, alpha=0.45, zorder=2)


def _noise_line(axes: Any, value: float, *, visible: bool) -> None:
    if visible:
        axes.axhline(value, color=MUTED, linewidth=1, linestyle=(0, (4, 4)))
    axes.annotate(
        f"another seed: {value:.2f}" + ("" if visible else ", far below"),
        (1, value if visible else 0),
        xycoords=("axes fraction", "data") if visible else "axes fraction",
        xytext=(0, 4),
        textcoords="offset points",
        fontsize=8.5,
        color=MUTED,
        ha="right",
    )


def stage_bars(rows: Sequence[Row], path: str | Path) -> Path:
    """Seconds of every stage as one stacked bar a method, fastest last; the first bar names the stages."""
    rows = sorted(rows, key=lambda row: -row["seconds_per_object"])
    figure = figure_of(9, 0.36 * len(rows) + 1.9)
    axes = figure.subplots()
    style(axes)
    stages = list(dict.fromkeys(stage for row in rows for stage in row["stage_seconds"]))
    left = np.zeros(len(rows))
    for stage in stages:
        width = np.array([row["stage_seconds"].get(stage) or 0.0 for row in rows])
        axes.barh(range(len(rows)), width, left=left, color=STAGE_COLOURS.get(stage, FREE), height=0.7)
        left += width
    for place, row in enumerate(rows):
        text = f"{row['seconds_per_object']:.2f} s  {row['speedup']:.1f}×"
        axes.annotate(
            text, (left[place], place), xytext=(6, 0), textcoords="offset points", va="center", fontsize=8.5, color=INK
        )
    axes.set_yticks(range(len(rows)), [row["method"] for row in rows])
    for tick, row in zip(axes.get_yticklabels(), rows, strict=True):
        tick.set_color(colour_of(row["method"]))
    axes.grid(visible=False, axis="y")
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, 1.14 * max(float(left.max()), 1e-9))
    axes.set_xlabel("seconds per object", color=INK)
    _name_stages(axes, stages)
    return save(figure, path)


def _name_stages(axes: Any, stages: Sequence[str]) -> None:
    """The stages in their colours, as one line of text above the bars."""
    from matplotlib.offsetbox import AnchoredOffsetbox, HPacker, TextArea

    words: list[Any] = [
        TextArea(stage.replace("_", " "), textprops={"color": STAGE_COLOURS.get(stage, FREE), "size": 8.5})
        for stage in stages
    ]
    axes.set_title(" ", fontsize=10)  # keeps room for the line
    line = HPacker(children=words, pad=0, sep=12)
    axes.add_artist(
        AnchoredOffsetbox("lower left", child=line, pad=0, frameon=False, bbox_to_anchor=(0, 1.01),
                          bbox_transform=axes.transAxes)
    )  # fmt: skip


SWEEP_PANELS = (
    ("fidelity_viou", "fidelity to off (vIoU)", 0.02),
    ("layout_distance", "layout distance to off", 0.005),
    ("speedup", "speed-up over off (×)", 0.5),
)


def tick_labels(values: Sequence[float], room: float = 0.07) -> list[str]:
    """Labels of ascending values; none where it would touch the last one, that is nearer than `room` of the range."""
    labels: list[str] = []
    last = float("-inf")
    for value in values:
        free = value - last >= room * (values[-1] - values[0])
        labels.append(f"{value:g}" if free else "")
        last = value if free else last
    return labels


def sweep_curves(by_guidance: Mapping[Any, Sequence[Row]], name: str, path: str | Path) -> Path:
    """A setting against fidelity, layout distance and speed-up: a line of panels for every guidance strength.

    by_guidance: rows named `preset@value`, as `fastsam3d.evaluation.benchmark.experiments.sweep_methods` names them.
    """
    sweep = SWEEPS[name]
    low, high = min(sweep.points), max(sweep.points)
    figure = figure_of(12, 3.2 * len(by_guidance) + 0.4)
    grid = figure.subplots(len(by_guidance), len(SWEEP_PANELS), squeeze=False, sharex=True, sharey="col")
    labels = []
    for line, (guidance, rows) in enumerate(by_guidance.items()):
        for axes, (column, title, least) in zip(grid[line], SWEEP_PANELS, strict=True):
            style(axes)
            curves = _curves(rows, column)
            for preset, points in curves.items():
                axes.plot(*zip(*points, strict=True), color=colour_of(preset), marker="o", markersize=4, linewidth=1.6)
            if sweep.cliff is not None:
                axes.axvspan(sweep.cliff - 0.5, high + 0.3, color=GRID, alpha=0.45, zorder=0, linewidth=0)
            axes.set_title(f"{title}, guidance {guidance_text(guidance)}", color=INK, loc="left", fontsize=10)
            # Room on the right for the names.
            axes.set_xlim(low - 0.06 * (high - low), high + 0.42 * (high - low))
            axes.set_xticks(list(sweep.points), tick_labels(list(sweep.points)))
            labels.append((axes, [points[-1] for points in curves.values()], list(curves), least))
    for axes in grid[-1]:
        axes.set_xlabel(sweep.label, color=INK, fontsize=9)
    for axes, _, _, least in labels:
        bottom, top = axes.get_ylim()
        if top - bottom < least:
            bottom, top = (bottom + top - least) / 2, (bottom + top + least) / 2
        if "fidelity" in axes.get_title(loc="left"):
            bottom, top = bottom - max(top - 1.001, 0), min(top, 1.001)  # nothing is closer than equal
        axes.set_ylim(bottom, top)
    if sweep.cliff is not None:
        text = f"published cliff: {sweep.cliff:g} and more"
        grid[0, 0].annotate(text, (0.01, 0.02), xycoords="axes fraction", fontsize=8, color=MUTED)
    figure.draw_without_rendering()
    for axes, ends, names, _ in labels:
        label_ends(axes, ends, names, [colour_of(n) for n in names])
    return save(figure, path)


def _curves(rows: Sequence[Row], column: str) -> dict[str, list[tuple[float, float]]]:
    """Points (value, column) of every preset in order of the value."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        point = point_of(row["method"])
        if point is not None and _is_number(row.get(column)):
            curves.setdefault(point[0], []).append((point[1], row[column]))
    return {preset: sorted(points) for preset, points in curves.items()}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and bool(np.isfinite(value))
