"""Summary and Markdown of the quality measurement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastsam3d.evaluation.reporting.statistics import finite_mean, paired_interval
from fastsam3d.evaluation.reporting.tables import COLUMNS, DIGITS, markdown_table, number

SHAPE_COLUMNS = ("viou", "f1_005", "f1_002", "f1_001", "cd", "normal_consistency", "surface_viou")
LAYOUT_COLUMNS = ("iou_3d", "rotation_error_deg", "translation_error", "scale_error")
APPEARANCE_COLUMNS = ("color_error", "hue_error", "normal_error_deg", "near_share")
"""See `metrics.true_colors.compare_colors`."""
_APPEARANCE_HEADINGS = ("colour error ↓", "hue error ↓", "normals ° ↓", "surface near the true one ↑")
_APPEARANCE_DIGITS = (3, 3, 1, 3)
MEDIANS = ("rotation_error_deg", "translation_error")


def summarise_quality(records: Sequence[dict[str, Any]], meta: dict[str, Any]) -> dict[str, Any]:
    """Means over all objects and by family; see `evaluate_quality`."""
    columns = SHAPE_COLUMNS + LAYOUT_COLUMNS + APPEARANCE_COLUMNS

    def mean(chosen: Sequence[dict[str, Any]], prefix: str = "", names: Sequence[str] = columns) -> dict[str, float]:
        return {name: finite_mean(_column(chosen, prefix + name)) for name in names}

    overall: dict[str, Any] = mean(records)
    for name in columns:
        values = _column(records, name)
        overall[f"{name}_ci"] = paired_interval(values, np.zeros(len(values))).to_list()
        if name in MEDIANS and np.isfinite(values).any():
            overall[f"{name}_median"] = float(np.nanmedian(values))
    overall["seconds_per_object"] = finite_mean(_column(records, "seconds"))
    families = {}
    for family in sorted({record["family"] for record in records}):
        own = [record for record in records if record["family"] == family]
        families[family] = {"objects": len(own), **mean(own)}
    return {
        "overall": overall,
        "families": families,
        "shuffled": mean(records, "shuffled_", SHAPE_COLUMNS + APPEARANCE_COLUMNS),
        "other_seed": mean(
            records, "other_", ("fidelity_viou", "fidelity_f1_005", "layout_distance", "viou", "f1_005")
        ),
        "meta": meta,
        "objects": list(records),
    }


def report(result: dict[str, Any]) -> str:
    """The measurement as Markdown."""
    overall, shuffled, other, meta = (result[key] for key in ("overall", "shuffled", "other_seed", "meta"))
    headings = {name: heading for name, heading, _ in COLUMNS}
    headings |= dict(zip(APPEARANCE_COLUMNS, _APPEARANCE_HEADINGS, strict=True))
    all_digits = DIGITS | dict(zip(APPEARANCE_COLUMNS, _APPEARANCE_DIGITS, strict=True))
    lines = []
    for name in SHAPE_COLUMNS + LAYOUT_COLUMNS + APPEARANCE_COLUMNS:
        low, high = overall[f"{name}_ci"]
        digits = all_digits[name]
        median = overall.get(f"{name}_median")
        lines.append(
            [
                headings[name],
                number(overall[name], digits),
                f"{number(low, digits)} to {number(high, digits)}",
                number(median, digits),
                number(shuffled.get(name), digits),
            ]
        )
    shown = ("viou", "f1_005", "f1_002", "cd", "iou_3d", "rotation_error_deg", "color_error")
    by_family = [
        [family, str(values["objects"]), *(number(values[name], all_digits[name]) for name in shown)]
        for family, values in sorted(result["families"].items(), key=lambda item: -item[1]["viou"])
    ]
    parts = [
        f"### Quality on {meta['objects']} held-out objects (seeds from {meta['first_seed']})",
        markdown_table(["metric", "mean", "95 % interval", "median", "shuffled images"], lines),
        f"{overall['seconds_per_object']:.2f} s an object; steps {meta['steps']}.",
    ]
    if meta.get("other_seed"):
        parts.append(
            f"Two runs of one image with different noise agree to vIoU {number(other['fidelity_viou'], 3)}, "
            f"F1@0.05 {number(other['fidelity_f1_005'], 1)}, layout distance "
            f"{number(other['layout_distance'], 3)}; the second run's own vIoU is {number(other['viou'], 4)}."
        )
    header = ["family", "objects", *(headings[name] for name in shown)]
    return "\n\n".join([*parts, markdown_table(header, by_family)]) + "\n"


def _column(records: Sequence[dict[str, Any]], name: str) -> list[float]:
    return [float("nan") if record.get(name) is None else record[name] for record in records]
