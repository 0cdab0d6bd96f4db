"""Verdicts of a benchmark: which method another one beats, object by object, with intervals that must be apart.

Costs are operations, which a busy machine does not change; where they are not known, processor seconds. A verdict needs
both: the 95 % interval of the cost ratio lies wholly above 1, and that of the paired difference in fidelity above 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastsam3d.evaluation.measuring.methods import REFERENCES
from fastsam3d.evaluation.reporting.statistics import finite_mean, paired_interval, ratio_interval
from fastsam3d.evaluation.reporting.tables import HEADINGS, half_width, markdown_table, number, values_of

ENOUGH = 8
"""Objects from which an interval says something; with fewer there is a warning."""
COSTS = {"tflop": "fewer operations", "cpu_seconds": "fewer processor seconds"}
"""Columns that a cost is taken from, the first that all records have, and what the ratio to `off` is called."""
JUDGE = "fidelity_viou"
LISTED = 4
"""Names that a cell of the table lists."""
Record = Mapping[str, Any]
Records = Mapping[str, Sequence[Record]]


@dataclass(frozen=True)
class Verdict:
    """What the others say about one method.

    Attributes:
        method: its name.
        cost_ratio: how many times less it costs than "off", and its 95 % limits.
        fidelity: mean, and 95 % limits of the mean.
        beaten_by: methods that are cheaper and closer to "off" at once, both with separated intervals.
        perhaps_by: methods that are so by their means only.
    """

    method: str
    cost_ratio: tuple[float, float, float]
    fidelity: tuple[float, float, float]
    beaten_by: tuple[str, ...]
    perhaps_by: tuple[str, ...]


def warning_of(objects: int) -> str | None:
    """A warning where so few objects were measured that verdicts mean little; else None."""
    if objects >= ENOUGH:
        return None
    measured = f"only {objects} object{'' if objects == 1 else 's'}"
    return f"{measured}: intervals are wide, and a ranking means little. Take objects={ENOUGH} or more."


def by_method(objects: Sequence[Record]) -> dict[str, list[Record]]:
    """Records of timed methods, by method; each list in the order of the objects."""
    grouped: dict[str, list[Record]] = {}
    for record in objects:
        if record["method"] not in REFERENCES:
            grouped.setdefault(record["method"], []).append(record)
    return grouped


def cost_of(records: Records) -> str:
    """The column that costs are taken from."""
    for name in COSTS:
        values = [value for own in records.values() for value in values_of(own, name)]
        if all(math.isfinite(value) and value > 0 for value in values):
            return name
    return "cpu_seconds"


def verdicts(records: Records) -> list[Verdict]:
    """Verdicts about all methods but "off", those that none beats first.

    Args:
        records: of the same objects in the same order, by method, "off" among them.
    """
    cost = cost_of(records)
    off = values_of(records["off"], cost)
    found = []
    for method, own in records.items():
        if method == "off":
            continue
        certain, possible = [], []
        for other, theirs in records.items():
            if other in (method, "off"):
                continue
            less, closer = _ratio(values_of(own, cost), values_of(theirs, cost)), _closer(theirs, own)
            if less[1] > 1 and closer[1] > 0:
                certain.append(other)
            elif less[0] > 1 and closer[0] > 0:
                possible.append(other)
        kept = paired_interval(values_of(own, JUDGE), [0.0] * len(own))
        fidelity = (kept.mean, kept.low, kept.high)
        found.append(Verdict(method, _ratio(off, values_of(own, cost)), fidelity, tuple(certain), tuple(possible)))
    return sorted(found, key=lambda verdict: (len(verdict.beaten_by), len(verdict.perhaps_by)))


def _ratio(slow: Sequence[float], fast: Sequence[float]) -> tuple[float, float, float]:
    mean = finite_mean(slow) / max(finite_mean(fast), 1e-12)
    return (mean, *ratio_interval(slow, fast))


def _closer(first: Sequence[Record], second: Sequence[Record]) -> tuple[float, float]:
    """Mean, and lower 95 % limit, of how much closer the first is to "off"."""
    interval = paired_interval(values_of(first, JUDGE), values_of(second, JUDGE))
    return interval.mean, interval.low


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return f"{', '.join(names[:LISTED])}{more}" or "–"


def front_table(objects: Sequence[Record]) -> str:
    """Every method with those that are cheaper and closer to "off" at once; a dash where there is none.

    Args:
        objects: records of one strength of guidance.
    """
    records = by_method(objects)
    lines = []
    for verdict in verdicts(records):
        ratio, low, high = verdict.cost_ratio
        limits = f" ({low:.2f}–{high:.2f})" if math.isfinite(low) and math.isfinite(high) else ""
        fidelity = number(verdict.fidelity[0], 4) + half_width(verdict.fidelity[1:], 4)
        others = (_listed(names) for names in (verdict.beaten_by, verdict.perhaps_by))
        lines.append([verdict.method, f"{number(ratio, 2)}×{limits}", fidelity, *others])
    heads = ["method", COSTS[cost_of(records)], HEADINGS[JUDGE], "beaten by", "perhaps, intervals overlap"]
    return markdown_table(heads, lines)
