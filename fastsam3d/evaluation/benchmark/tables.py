"""The tables of a benchmark, from its rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fastsam3d.evaluation.reporting.tables import (
    DIGITS,
    HEADINGS,
    TO_BASELINE,
    TO_LIMIT,
    half_width,
    markdown_table,
    number,
)

Row = Mapping[str, Any]


def main_table(rows: Sequence[Row]) -> str:
    """The columns of the published table: quality against the truth, seconds of an object and of a scene, speed-up."""
    shown = ("ssim", "cd", "f1_005", "viou", "iou_3d")
    lines = [
        [
            row["method"],
            *(number(row[name], DIGITS[name]) for name in shown),
            _timed(row, "seconds_per_object", 3),
            _ratio(row, "speedup"),
            _timed(row, "scene_seconds", 2),
            _ratio(row, "scene_speedup"),
        ]
        for row in rows
    ]
    header = ["method", *(HEADINGS[name] for name in shown), "s/object", "speed-up", "s/scene", "speed-up, scene"]
    return markdown_table(header, lines)


def fidelity_table(rows: Sequence[Row]) -> str:
    """The judge: distance to the result of "off" for the same noise, with 95 % limits, beside the speed-up."""
    lines = []
    for row in rows:
        cells = [number(row[n], DIGITS[n]) + half_width(row[f"{n}_ci"], DIGITS[n]) for n in TO_BASELINE]
        if row["method"] == "off":
            cells = [number(row[n], DIGITS[n]) for n in TO_BASELINE]
        lines.append([row["method"], _ratio(row, "speedup"), _limits(row, "speedup_ci"), *cells])
    return markdown_table(["method", "speed-up", "95 %", *(HEADINGS[name] for name in TO_BASELINE)], lines)


def limit_table(rows: Sequence[Row]) -> str | None:
    """The second judge: distance to the converged solution, and its paired difference to that of "off".

    None without a row "limit".
    """
    if not any(row["method"] == "limit" for row in rows):
        return None
    lines = []
    for row in rows:
        if row["method"] == "limit":
            continue
        cells = []
        for name in TO_LIMIT:
            own = number(row[name], DIGITS[name])
            cells.append(own if row["method"] == "off" else f"{own} ({_delta(row, name)})")
        # Operations and not seconds: what lies how far from the limit can be measured on a busy machine.
        lines.append(
            [row["method"], number(row["nfe_ss"], 1), number(row["nfe_slat"], 1), _ratio(row, "tflop_ratio"), *cells]
        )
    header = ["method", HEADINGS["nfe_ss"], HEADINGS["nfe_slat"], "fewer operations"]
    return markdown_table([*header, *(f"{HEADINGS[name]} (Δ to off)" for name in TO_LIMIT)], lines)


def difference_table(rows: Sequence[Row]) -> str:
    """Paired differences to "off" against the truth, with the half width of their 95 % intervals."""
    shown = ("ssim", "psnr", "cd", "f1_005", "f1_002", "f1_001", "normal_consistency", "viou", "iou_3d")
    return _differences(rows, shown)


def pose_table(rows: Sequence[Row]) -> str:
    """Pose errors of every method, and their paired differences to "off"."""
    shown = ("rotation_error_deg", "translation_error", "scale_error", "iou_3d")
    lines = []
    for row in rows:
        cells = []
        for name in shown:
            own = number(row[name], DIGITS[name])
            cells.append(own if row["method"] == "off" else f"{own} ({_delta(row, name)})")
        lines.append([row["method"], *cells])
    return markdown_table(["method", *(f"{HEADINGS[name]} (Δ)" for name in shown)], lines)


def cost_table(rows: Sequence[Row]) -> str:
    """Table of the computed work: network evaluations, tokens, operations, memory."""
    shown = ("nfe_ss", "nfe_slat", "tokens_ss", "tokens_slat")
    lines = [
        [
            row["method"],
            *(number(row[name], DIGITS[name]) for name in shown),
            number(row.get("tflop"), 4),
            _times(row.get("tflop_ratio")),
            number(row.get("peak_memory_mib"), 0),
        ]
        for row in rows
    ]
    return markdown_table(["method", *(HEADINGS[name] for name in shown), "TFLOP", "fewer", "peak MiB"], lines)


def split_table(rows: Sequence[Row]) -> str | None:
    """Table of the exact and the approximate part of each saving; None without a row "exact"."""
    seconds = {row["method"]: row["seconds_per_object"] for row in rows}
    if "exact" not in seconds:
        return None
    off, exact = seconds["off"], seconds["exact"]
    lines = []
    for row in rows:
        own = row["seconds_per_object"]
        if row["method"] in ("off", "exact") or own >= off:
            continue
        share = min(max((off - exact) / (off - own), 0.0), 1.0)
        lines.append([row["method"], f"{off - own:.3f}", f"{off / exact:.2f}×", f"{exact / own:.2f}×", f"{share:.0%}"])
    header = ["method", "s saved", "exact", "approximate, on top", "share of the saving that is exact"]
    return markdown_table(header, lines)


def stage_table(rows: Sequence[Row]) -> str:
    """Seconds of every stage, mean over objects."""
    stages = list(dict.fromkeys(stage for row in rows for stage in row["stage_seconds"]))
    lines = [[row["method"], *(number(row["stage_seconds"].get(stage), 3) for stage in stages)] for row in rows]
    return markdown_table(["method", *(stage.replace("_", " ") for stage in stages)], lines)


def _differences(rows: Sequence[Row], shown: Sequence[str]) -> str:
    lines = [[row["method"], *(_delta(row, name) for name in shown)] for row in rows if row["method"] != "off"]
    return markdown_table(["method", *(f"Δ {HEADINGS[name]}" for name in shown)], lines)


def _delta(row: Row, name: str) -> str:
    delta, digits = row[f"{name}_delta"], DIGITS[name]
    text = "–" if delta is None or not math.isfinite(delta) else f"{delta:+.{digits}f}"
    return text + half_width(row[f"{name}_ci"], digits)


def _timed(row: Row, name: str, digits: int) -> str:
    return number(row.get(name), digits) if row.get("timed", True) else "–"


def _ratio(row: Row, name: str) -> str:
    return _times(row.get(name)) if row.get("timed", True) else "–"


def _times(value: float | None) -> str:
    text = number(value, 2)
    return text if text == "–" else f"{text}×"


def _limits(row: Row, name: str) -> str:
    limits = row.get(name)
    if not row.get("timed", True) or not limits or any(x is None or not math.isfinite(x) for x in limits):
        return "–"
    return f"{limits[0]:.2f}–{limits[1]:.2f}"
