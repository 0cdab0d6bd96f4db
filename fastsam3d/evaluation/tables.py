"""From the records of single objects to rows, and from rows to Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastsam3d.evaluation.statistics import finite_mean, paired_interval, ratio_interval

# Columns of a row that are means over objects: name, heading, digits, and which way is better (for readers).
COLUMNS = (
    ("cd", "CD ↓", 4),
    ("f1_005", "F1@0.05 ↑", 2),
    ("f1_002", "F1@0.02 ↑", 2),
    ("f1_001", "F1@0.01 ↑", 2),
    ("normal_consistency", "normals ↑", 3),
    ("viou", "vIoU ↑", 4),
    ("surface_viou", "surface vIoU ↑", 4),
    ("iou_3d", "3D-IoU ↑", 4),
    ("rotation_error_deg", "rotation ° ↓", 2),
    ("translation_error", "translation ↓", 4),
    ("scale_error", "scale ↓", 4),
    ("fidelity_viou", "fidelity vIoU ↑", 4),
    ("fidelity_f1_005", "fidelity F1 ↑", 2),
    ("layout_distance", "layout distance ↓", 4),
    ("nfe_ss", "NFE SS", 1),
    ("nfe_slat", "NFE SLaT", 1),
)
DIGITS = {name: digits for name, _, digits in COLUMNS}
TO_BASELINE = ("fidelity_viou", "fidelity_f1_005", "layout_distance")
COUNTS = ("nfe_ss", "nfe_slat")
Record = Mapping[str, Any]


def summarise(method: str, records: Sequence[Record], baseline: Sequence[Record]) -> dict[str, Any]:
    """One row from the records of one method and of "off", object by object in the same order.

    "seconds_per_object" is the mean; "speedup" the ratio of total seconds, "speedup_median" the median of the
    ratios of single objects, "speedup_ci" a bootstrap interval; the same of processor seconds is
    "cpu_speedup". Every other column is a mean over objects. "<column>_delta" is the mean paired difference
    to "off" of the metrics against the truth, and "<column>_ci" its 95 % limits; for the columns that already
    compare with "off" "<column>_ci" are the limits of the mean itself.
    """
    seconds = [record["seconds"] for record in records]
    slow = [record["seconds"] for record in baseline]
    cpu, slow_cpu = ([record.get("cpu_seconds", math.nan) for record in own] for own in (records, baseline))
    row: dict[str, Any] = {
        "method": method,
        "seconds_per_object": finite_mean(seconds),
        "speedup": sum(slow) / max(sum(seconds), 1e-12),
        "speedup_median": float(np.median(np.asarray(slow) / np.maximum(seconds, 1e-12))),
        "speedup_ci": list(ratio_interval(slow, seconds)),
        "cpu_seconds_per_object": finite_mean(cpu),
        "cpu_speedup": sum(slow_cpu) / sum(cpu) if sum(cpu) > 0 else math.nan,
    }
    for name, _, _ in COLUMNS:
        values = [record.get(name, math.nan) for record in records]
        row[name] = finite_mean(values)
        if name in TO_BASELINE:
            row[f"{name}_ci"] = paired_interval(values, np.zeros(len(values))).to_list()
        elif name not in COUNTS:
            difference = paired_interval(values, [record.get(name, math.nan) for record in baseline])
            row[f"{name}_delta"], row[f"{name}_ci"] = difference.mean, difference.to_list()
    stages = dict.fromkeys(stage for record in records for stage in record.get("stage_seconds", {}))
    row["stage_seconds"] = {
        stage: finite_mean([record["stage_seconds"].get(stage, 0.0) for record in records]) for stage in stages
    }
    return row


def markdown_table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose source is aligned too; the first column to the left, the others to the right."""
    cells = [list(map(str, header)), *[list(map(str, line)) for line in lines]]
    widths = [max(3, *(len(line[i]) for line in cells)) for i in range(len(header))]

    def row(line: Sequence[str]) -> str:
        padded = [
            line[0].ljust(widths[0]),
            *(text.rjust(width) for text, width in zip(line[1:], widths[1:], strict=True)),
        ]
        return "| " + " | ".join(padded) + " |"

    rule = "|" + "|".join([f":{'-' * (widths[0] + 1)}", *(f"{'-' * (width + 1)}:" for width in widths[1:])]) + "|"
    return "\n".join([row(cells[0]), rule, *map(row, cells[1:])])


def number(value: float | None, digits: int) -> str:
    """Fixed digits; a dash for what is missing or not finite."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def half_width(limits: Sequence[float | None] | None, digits: int) -> str:
    """Half of a symmetric interval as "±x"; empty where it is unbounded."""
    if not limits or any(limit is None or not math.isfinite(limit) for limit in limits):
        return ""
    low, high = (float(limit or 0) for limit in limits)
    return f" ±{(high - low) / 2:.{digits}f}"


def main_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Speed, quality and fidelity on one line a method."""
    shown = ("cd", "f1_005", "viou", "iou_3d", "rotation_error_deg", *TO_BASELINE, *COUNTS)
    headings = {name: heading for name, heading, _ in COLUMNS}
    lines = []
    for row in rows:
        timed = row.get("timed", True)
        lines.append(
            [
                row["method"],
                number(row["seconds_per_object"], 3) if timed else "–",
                f"{row['speedup']:.2f}×" if timed else "–",
                *(number(row[name], DIGITS[name]) for name in shown),
            ]
        )
    return markdown_table(["method", "s/object", "speed-up", *(headings[name] for name in shown)], lines)


def difference_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Paired differences to "off" with the half width of their 95 % intervals."""
    shown = ("cd", "f1_005", "f1_002", "f1_001", "viou", "iou_3d", "rotation_error_deg")
    headings = {name: heading for name, heading, _ in COLUMNS}
    lines = []
    for row in rows:
        if row["method"] == "off":
            continue
        cells = []
        for name in shown:
            delta = row[f"{name}_delta"]
            text = "–" if delta is None or not math.isfinite(delta) else f"{delta:+.{DIGITS[name]}f}"
            cells.append(text + half_width(row[f"{name}_ci"], DIGITS[name]))
        for name in ("fidelity_viou", "layout_distance"):
            cells.append(number(row[name], 4) + half_width(row[f"{name}_ci"], 4))
        lines.append([row["method"], *cells])
    header = ["method", *(f"Δ {headings[name]}" for name in shown), "fidelity vIoU", "layout distance"]
    return markdown_table(header, lines)


def stage_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Seconds of every stage, mean over objects."""
    stages = list(dict.fromkeys(stage for row in rows for stage in row["stage_seconds"]))
    lines = [[row["method"], *(number(row["stage_seconds"].get(stage), 3) for stage in stages)] for row in rows]
    return markdown_table(["method", *(stage.replace("_", " ") for stage in stages)], lines)
