"""Progress of a batch: objects per second, failures, time left; and the sums for its report."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from fastsam3d.cluster.batch.ledger import Row

SHOWN = 20
"""Failures that the report names; the index has all."""


@dataclass
class Sums:
    """Sums over the rows of a batch."""

    statuses: Counter[str] = field(default_factory=Counter)
    numbers: Counter[str] = field(default_factory=Counter)
    stages: Counter[str] = field(default_factory=Counter)
    failures: list[dict[str, Any]] = field(default_factory=list)
    poison: list[str] = field(default_factory=list)

    def add(self, row: Row) -> None:
        """Adds a row."""
        self.statuses[row["status"]] += 1
        for key in ("objects", "failed_objects", "evaluations", "faces", "bytes", "seconds"):
            self.numbers[key] += row.get(key) or 0
        for stage, seconds in row.get("stage_seconds", {}).items():
            self.stages[stage] += seconds
        if row["status"] == "poison":
            self.poison.append(row["name"])
        if row["status"] != "ok" and len(self.failures) < SHOWN:
            self.failures.append({key: row[key] for key in ("name", "status", "error")})

    def described(self) -> dict[str, Any]:
        """Returns plain values for the report."""
        return {
            "items": sum(self.statuses.values()),
            "statuses": dict(self.statuses),
            **self.numbers,
            "stage_seconds": dict(self.stages),
            "failures": self.failures,
            "poison": self.poison,
        }


class Rate:
    """Measures how fast the items of this run are computed.

    Args:
        items: of the whole batch.
        done: number of items that were done before this run.
    """

    def __init__(self, items: int, done: int) -> None:
        self._items, self._done, self._here, self._objects, self._failed = items, done, 0, 0, 0
        self._start = time.monotonic()

    def add(self, row: Row) -> tuple[str, int, int]:
        """Counts a row; returns (a line for people, items done, items)."""
        self._here += 1
        self._objects += row.get("objects") or 0
        self._failed += row["status"] != "ok"
        elapsed = max(time.monotonic() - self._start, 1e-6)
        left = (self._items - self._done - self._here) * elapsed / self._here
        text = f"{self._objects / elapsed:.2f} objects/s, {self._failed} failed, {duration(left)} left"
        return text, self._done + self._here, self._items

    @property
    def seconds(self) -> float:
        """Returns the seconds since the beginning."""
        return time.monotonic() - self._start


def duration(seconds: float) -> str:
    """Formats a duration as text: 12 s, 3:05 min, 2:10 h."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02d} h"
