"""Style of all plots: one figure without global state, one ink, one colour a method, labels at the data.

matplotlib is imported when a picture is drawn, not before; where it is missing the error says how to get it.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastsam3d.basics.files import write_atomically
from fastsam3d.basics.optional import optional_module

INK, GRID, MUTED, ACCENT = "#1b1f24", "#d9dee3", "#6a737d", "#0b6bcb"


def figure_of(width: float, height: float) -> Any:
    """An empty figure, `width` by `height` inches."""
    # A figure of its own canvas: pyplot would keep global state and may want a display.
    canvas = optional_module("matplotlib.backends.backend_agg", "measuring", "bench")
    figures = optional_module("matplotlib.figure", "measuring", "bench")
    figure = figures.Figure(figsize=(width, height), dpi=144, facecolor="white", layout="constrained")
    canvas.FigureCanvasAgg(figure)
    return figure


def save(figure: Any, path: str | Path) -> Path:
    """Writes a figure as PNG, whole or not at all."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return write_atomically(path, buffer.getvalue())


def style(axes: Any) -> None:
    """Gives axes the look of all plots: a light grid, no frame."""
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=MUTED, length=0)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(GRID)


def label(
    axes: Any,
    spots: Sequence[tuple[float, float]],
    names: Sequence[str],
    *,
    colours: Sequence[str] = (),
    size: float = 9.5,
) -> None:
    """Writes names beside points, each at the nearest place where it covers no other name and no point.

    The layout of the figure must be settled. A name that had to go further off is tied to its point by a line.
    """
    if not spots:
        return
    scale = axes.figure.dpi / 72
    places = axes.transData.transform(spots) / scale
    box = axes.get_window_extent()
    inside = (box.x0 / scale, box.y0 / scale, box.x1 / scale, box.y1 / scale)
    taken = [(x - 5, y - 5, x + 5, y + 5) for x, y in places]
    for index, ((x, y), spot, name) in enumerate(zip(places, spots, names, strict=True)):
        width, height = 0.6 * size * len(name), size
        shifts = [
            (dx, dy) for reach in (0, 13, 26, 39, 54, 70) for dy in (reach - 4, -reach - 4)
            for dx in (8 + reach / 3, -8 - width - reach / 3, -width / 2)
            if reach or dx != -width / 2
        ]  # fmt: skip

        def cost(shift: tuple[float, float], x: float = x, y: float = y, w: float = width, h: float = height) -> float:
            left, bottom = x + shift[0], y + shift[1]
            covered = sum(
                left < other[2] and other[0] < left + w and bottom < other[3] and other[1] < bottom + h
                for other in taken
            )
            outside = max(inside[0] - left, 0) + max(left + w - inside[2], 0) + max(inside[1] - bottom, 0)
            outside += max(bottom + h - inside[3], 0)
            return 100 * covered + 5 * outside + abs(shift[1] + 4)

        best = min(shifts, key=cost)
        taken.append((x + best[0], y + best[1], x + best[0] + width, y + best[1] + height))
        far = abs(best[1] + 4) > 14
        axes.annotate(
            name,
            spot,
            xytext=best,
            textcoords="offset points",
            fontsize=size,
            color=colours[index] if colours else INK,
            arrowprops={"arrowstyle": "-", "color": GRID, "linewidth": 0.8, "shrinkB": 4} if far else None,
        )


def label_ends(
    axes: Any, ends: Sequence[tuple[float, float]], names: Sequence[str], colours: Sequence[str], size: float = 9
) -> None:
    """Writes names to the right of the ends of their curves, one above the other where ends lie close together.

    The layout of the figure must be settled, and there must be room on the right.
    """
    scale = axes.figure.dpi / 72
    heights = [float(axes.transData.transform(end)[1]) / scale for end in ends]
    order = sorted(range(len(ends)), key=lambda i: heights[i])
    places, gap = list(heights), 1.25 * size
    for below, above in itertools.pairwise(order):
        places[above] = max(places[above], places[below] + gap)
    limit = axes.get_window_extent().y1 / scale
    for index in reversed(order):
        places[index] = min(places[index], limit)
        limit = places[index] - gap
    for index in order:
        axes.annotate(
            names[index],
            ends[index],
            xytext=(8, places[index] - heights[index]),
            textcoords="offset points",
            fontsize=size,
            color=colours[index],
            va="center",
        )
