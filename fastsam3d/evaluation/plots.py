"""Pictures of measurements: Pareto front, gallery of reconstructions, loss curves.

matplotlib is imported when a picture is drawn, not before; where it is missing the error says how to get it.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastsam3d.errors import UserError
from fastsam3d.evaluation.metrics import as_array
from fastsam3d.evaluation.optional import require
from fastsam3d.evaluation.pose_metrics import quaternion_to_matrix
from fastsam3d.pipeline.files import write_atomically

INK, GRID, MUTED, ACCENT = "#1b1f24", "#d9dee3", "#6a737d", "#0b6bcb"

NOT_LOSSES = {"step", "norm", "seconds", "minutes", "samples", "rate", "lr", "learning_rate", "time", "epoch"}


def _figure(width: float, height: float) -> Any:
    # A figure of its own canvas: pyplot would keep global state and may want a display.
    canvas, figures = require("matplotlib.backends.backend_agg"), require("matplotlib.figure")
    figure = figures.Figure(figsize=(width, height), dpi=144, facecolor="white", layout="constrained")
    canvas.FigureCanvasAgg(figure)
    return figure


def _save(figure: Any, path: str | Path) -> Path:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return write_atomically(path, buffer.getvalue())


def _style(axes: Any) -> None:
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=MUTED, length=0)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(GRID)


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points that no other beats, by first coordinate; in both larger is better."""
    best, front = -np.inf, []
    for index in sorted(range(len(points)), key=lambda i: (-points[i][0], -points[i][1])):
        if points[index][1] > best:
            best = points[index][1]
            front.append(index)
    return front[::-1]


def pareto(rows: Sequence[Mapping[str, Any]], path: str | Path) -> Path:
    """Speed-up against fidelity, F1 and 3D-IoU, one panel each; rows as in bench.json.

    The line joins the methods that no other beats in both; the band in the first panel is the fidelity that
    another seed has, the scale of what does not matter.
    """
    figure = _figure(13, 4.4)
    timed = [row for row in rows if row.get("timed", True)]
    noise = next((row for row in rows if row["method"] == "other_seed"), None)
    # The least height of a panel, so that differences that are nothing do not fill it.
    panels = (
        ("fidelity_viou", "fidelity to off (vIoU)", 0.05),
        ("f1_005", "F1@0.05 against truth (%)", 4.0),
        ("iou_3d", "3D-IoU against truth", 0.05),
    )
    labelled = []
    for axes, (column, label, least) in zip(figure.subplots(1, len(panels)), panels, strict=True):
        _style(axes)
        drawn = [row for row in timed if row.get(column) is not None and np.isfinite(row[column])]
        spots = [(row["speedup"], row[column]) for row in drawn]
        front = pareto_front(spots)
        axes.plot(
            [spots[i][0] for i in front],
            [spots[i][1] for i in front],
            color=ACCENT,
            linewidth=1.2,
            alpha=0.6,
        )
        for spot, row in zip(spots, drawn, strict=True):
            control = row["method"] in ("off", "fewer_steps")
            axes.scatter(*spot, s=46, color=MUTED if control else ACCENT, zorder=3)
        labelled.append((axes, spots, [row["method"] for row in drawn]))
        if column == "fidelity_viou" and noise is not None and noise.get(column) is not None:
            axes.axhline(noise[column], color=MUTED, linewidth=1, linestyle=(0, (4, 4)))
            axes.annotate(
                "another seed", (1, noise[column]), xycoords=("axes fraction", "data"), xytext=(0, 4),
                textcoords="offset points", fontsize=8, color=MUTED, ha="right",
            )  # fmt: skip
        axes.set_xlabel("speed-up over off (×)", color=INK)
        axes.set_ylabel(label, color=INK)
        axes.margins(0.18)
        low, high = axes.get_ylim()
        if high - low < least:
            axes.set_ylim((low + high - least) / 2, (low + high + least) / 2)
    figure.draw_without_rendering()  # settles the layout, on which the places of the labels depend
    for axes, spots, names in labelled:
        _label(axes, spots, names)
    return _save(figure, path)


def _label(axes: Any, spots: Sequence[tuple[float, float]], names: Sequence[str], size: float = 9) -> None:
    """Write names beside points, each where it covers no other name and no point, as far as there is room."""
    scale = axes.figure.dpi / 72
    places = axes.transData.transform(spots) / scale if spots else np.zeros((0, 2))
    taken = [(x - 5, y - 5, x + 5, y + 5) for x, y in places]
    for (x, y), spot, name in zip(places, spots, names, strict=True):
        width = 0.58 * size * len(name)
        shifts = [(dx, dy) for dy in (5, -13, 17, -25, 29, -37) for dx in (6, -6 - width)]

        def clashes(shift: tuple[float, float], x: float = x, y: float = y, width: float = width) -> int:
            left, bottom = x + shift[0], y + shift[1]
            return sum(
                left < other[2] and other[0] < left + width and bottom < other[3] and other[1] < bottom + size
                for other in taken
            )

        best = min(shifts, key=clashes)
        taken.append((x + best[0], y + best[1], x + best[0] + width, y + best[1] + size))
        axes.annotate(name, spot, xytext=best, textcoords="offset points", fontsize=size, color=INK)


def stage_bars(rows: Sequence[Mapping[str, Any]], path: str | Path) -> Path:
    """Seconds of every stage as one stacked bar a method."""
    figure = _figure(9, 0.5 * len(rows) + 1.8)
    axes = figure.subplots()
    _style(axes)
    stages = list(dict.fromkeys(stage for row in rows for stage in row["stage_seconds"]))
    shades = [
        "#0b3a66",
        "#0b6bcb",
        "#62a8ea",
        "#b9d7f5",
        "#8a5a00",
        "#e09f1f",
        "#f3cf85",
        "#6a737d",
        "#b4bcc4",
    ]
    left = np.zeros(len(rows))
    for index, stage in enumerate(stages):
        width = np.array([row["stage_seconds"].get(stage) or 0.0 for row in rows])
        colour = shades[index % len(shades)]
        axes.barh(range(len(rows)), width, left=left, color=colour, label=stage.replace("_", " "), height=0.65)
        left += width
    axes.set_yticks(range(len(rows)), [row["method"] for row in rows], color=INK)
    axes.invert_yaxis()
    axes.set_xlabel("seconds per object", color=INK)
    axes.legend(fontsize=8, frameon=False, ncols=5, loc="upper center", bbox_to_anchor=(0.5, -0.28))
    return _save(figure, path)


def gallery(views: Sequence[Any], reconstructions: Sequence[Any], path: str | Path, *, columns: int = 4) -> Path:
    """Inputs beside their meshes, `columns` pairs a line.

    views: objects with `.image` (uint8 [H, W, 3]), `.mask` and optionally `.object.family` and `.pose`, in
    which case the mesh is seen from the side of the camera; reconstructions: what `Pipeline.run` returned for
    them.
    """
    from fastsam3d.pipeline.preview import render_mesh

    lines = -(-len(views) // columns)
    figure = _figure(3.2 * columns, 1.75 * lines)
    grid = figure.subplots(lines, 2 * columns, squeeze=False)
    for axes in grid.ravel():
        axes.set_axis_off()
    for index, (view, reconstruction) in enumerate(zip(views, reconstructions, strict=True)):
        line, column = divmod(index, columns)
        left, right = grid[line, 2 * column], grid[line, 2 * column + 1]
        left.imshow(_around_object(view))
        left.set_title(getattr(getattr(view, "object", None), "family", ""), fontsize=8, color=INK, loc="left")
        mesh, pose = reconstruction.mesh, getattr(view, "pose", None)
        angles = (30.0, 20.0) if pose is None else camera_angles(pose)
        right.imshow(np.asarray(render_mesh(mesh.vertices, mesh.faces, mesh.vertex_colors, *angles)))
    return _save(figure, path)


def _around_object(view: Any) -> np.ndarray:
    """The square part of the picture around the mask, with a margin; the whole picture without a mask."""
    mask = getattr(view, "mask", None)
    if mask is None or not np.any(mask):
        return view.image
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    half = 0.6 * max(rows[-1] - rows[0], columns[-1] - columns[0]) + 2
    slices = [
        slice(int(max(0, middle - half)), int(middle + half) + 1)
        for middle in ((rows[0] + rows[-1]) / 2, (columns[0] + columns[-1]) / 2)
    ]
    return view.image[tuple(slices)]


def camera_angles(pose: Any) -> tuple[float, float]:
    """Azimuth and elevation (degrees, as in `preview.view_rotation`) of the camera that sees `pose`."""
    towards = -as_array(pose.translation).reshape(3) @ quaternion_to_matrix(pose.rotation).T
    x, y, z = towards / max(float(np.linalg.norm(towards)), 1e-12)
    return float(np.degrees(np.arctan2(x, -y))), float(np.degrees(np.arcsin(np.clip(z, -1, 1))))


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
    figure = _figure(8, 4.5)
    axes = figure.subplots()
    _style(axes)
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
    return _save(figure, path)
