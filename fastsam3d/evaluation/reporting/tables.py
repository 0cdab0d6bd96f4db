"""Turns records of single objects into rows, and rows into Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastsam3d.evaluation.measuring.counters import COUNTED
from fastsam3d.evaluation.reporting.statistics import finite_mean, paired_interval, ratio_interval

# Columns of a row that are means over objects: name, heading, digits; the arrow says which way is better.
COLUMNS = (
    ("ssim", "SSIM ↑", 4),
    ("psnr", "PSNR dB ↑", 2),
    ("mask_iou", "mask IoU ↑", 4),
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
    ("fidelity_ssim", "fidelity SSIM ↑", 4),
    ("layout_distance", "layout distance ↓", 4),
    ("limit_viou", "vIoU with the limit ↑", 4),
    ("limit_layout_distance", "layout distance to the limit ↓", 4),
    ("limit_latent_error", "latents' error ↓", 4),
    ("nfe_ss", "NFE SS", 1),
    ("nfe_slat", "NFE SLaT", 1),
    ("tokens_ss", "tokens SS", 0),
    ("tokens_slat", "tokens SLaT", 0),
    ("tflop", "TFLOP", 4),
    ("tflop_ss", "TFLOP SS", 4),
    ("tflop_slat", "TFLOP SLaT", 4),
    ("peak_memory_mib", "peak MiB", 0),
)
HEADINGS = {name: heading for name, heading, _ in COLUMNS}
DIGITS = {name: digits for name, _, digits in COLUMNS}
TO_BASELINE = ("fidelity_viou", "fidelity_f1_005", "fidelity_ssim", "layout_distance")
TO_LIMIT = ("limit_viou", "limit_layout_distance", "limit_latent_error")
COSTS = ("nfe_ss", "nfe_slat", "tokens_ss", "tokens_slat", *COUNTED, "peak_memory_mib")
Record = Mapping[str, Any]


def values_of(records: Sequence[Record], name: str) -> list[float]:
    """A column of records; NaN where it is missing."""
    return [math.nan if record.get(name) is None else record[name] for record in records]


def summarise(
    method: str,
    records: Sequence[Record],
    baseline: Sequence[Record],
    *,
    scenes: Sequence[Record] = (),
) -> dict[str, Any]:
    """One row from the records of one method and of "off", object by object in the same order.

    "seconds_per_object" is the mean; "speedup" the ratio of total seconds, "speedup_median" the median of the
    ratios of single objects, "speedup_ci" a bootstrap interval; the same of processor seconds is
    "cpu_speedup". Every other column is a mean over objects. "<column>_delta" is the mean paired difference
    to "off" of the metrics against the truth, and "<column>_ci" its 95 % limits; for the columns that already
    compare with "off" "<column>_ci" are the limits of the mean itself.

    scenes: records of scenes of all methods ("seconds", "iou_3d").
    """
    seconds, slow = values_of(records, "seconds"), values_of(baseline, "seconds")
    cpu, slow_cpu = values_of(records, "cpu_seconds"), values_of(baseline, "cpu_seconds")
    row: dict[str, Any] = {
        "method": method,
        "seconds_per_object": finite_mean(seconds),
        "seconds_ci": paired_interval(seconds, np.zeros(len(seconds))).to_list(),
        "speedup": sum(slow) / max(sum(seconds), 1e-12),
        "speedup_median": float(np.median(np.asarray(slow) / np.maximum(seconds, 1e-12))),
        "speedup_ci": list(ratio_interval(slow, seconds)),
        "cpu_seconds_per_object": finite_mean(cpu),
        "cpu_speedup": sum(slow_cpu) / sum(cpu) if sum(cpu) > 0 else math.nan,
    }
    for name, _, _ in COLUMNS:
        values = values_of(records, name)
        row[name] = finite_mean(values)
        if name in TO_BASELINE:
            row[f"{name}_ci"] = paired_interval(values, np.zeros(len(values))).to_list()
        elif name not in COSTS:
            difference = paired_interval(values, values_of(baseline, name))
            row[f"{name}_delta"], row[f"{name}_ci"] = difference.mean, difference.to_list()
    stages = dict.fromkeys(stage for record in records for stage in record.get("stage_seconds", {}))
    row["stage_seconds"] = {
        stage: finite_mean([record["stage_seconds"].get(stage, 0.0) for record in records]) for stage in stages
    }
    row["tflop_ratio"] = finite_mean(values_of(baseline, "tflop")) / row["tflop"] if row["tflop"] else math.nan
    return row | _scene_columns(method, scenes)


def _scene_columns(method: str, scenes: Sequence[Record]) -> dict[str, Any]:
    """Seconds a scene, speed-up over "off" and the mean 3D-IoU of the objects."""
    own, off = ([r for r in scenes if r["method"] == name] for name in (method, "off"))
    seconds, slow = values_of(own, "seconds"), values_of(off, "seconds")
    return {
        "scene_seconds": finite_mean(seconds),
        "scene_speedup": sum(slow) / sum(seconds) if seconds else math.nan,
        "scene_speedup_ci": list(ratio_interval(slow, seconds)),
        "scene_iou_3d": finite_mean(values_of(own, "iou_3d")),
    }


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


def guidance_text(guidance: float | str) -> str:
    """Guidance strength of a row: "7", or "2/1" where the stages differ."""
    return f"{guidance:g}" if isinstance(guidance, (int, float)) else guidance


def half_width(limits: Sequence[float | None] | None, digits: int) -> str:
    """Half of a symmetric interval as "±x"; empty where it is unbounded."""
    if not limits or any(limit is None or not math.isfinite(limit) for limit in limits):
        return ""
    low, high = (float(limit or 0) for limit in limits)
    return f" ±{(high - low) / 2:.{digits}f}"
