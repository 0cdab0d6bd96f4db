"""Counts of the service, as text for Prometheus."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from fastsam3d.cluster.service.store import DONE

FIRST_GUESS = 10.0
"""Assumed seconds of a job until the first one has ended."""


class Metrics:
    """Counts since the start of the service."""

    def __init__(self) -> None:
        self._jobs: Counter[str] = Counter()
        self._seconds, self._objects = 0.0, 0

    def ended(self, state: Mapping[str, Any]) -> None:
        """Counts a job that has ended."""
        self._jobs[state["status"]] += 1
        if state["status"] == DONE:
            self._seconds += state.get("seconds") or 0.0
            self._objects += (state.get("objects") or 0) - (state.get("failed_objects") or 0)

    def seconds_until_free(self, jobs: int, workers: int) -> int:
        """Estimates after how many seconds about half of the jobs will be done, from 1 to 600."""
        mean = self._seconds / self._jobs[DONE] if self._jobs[DONE] else FIRST_GUESS
        return max(1, min(600, math.ceil(mean * jobs / (2 * max(workers, 1)))))

    def text(self, waiting: int, stored: int, used: int, answers: Mapping[int, int]) -> str:
        """Formats all counts for Prometheus.

        Args:
            waiting: jobs that wait or run.
            stored: jobs in the store.
            used: bytes of the store.
            answers: numbers of answers by their status.
        """
        lines = ["# TYPE fastsam3d_requests_total counter"]
        lines += [f'fastsam3d_requests_total{{code="{code}"}} {n}' for code, n in sorted(answers.items())]
        lines.append("# TYPE fastsam3d_jobs_total counter")
        lines += [f'fastsam3d_jobs_total{{status="{status}"}} {n}' for status, n in sorted(self._jobs.items())]
        # Every digit: a counter that is rounded stands still for a while, and then jumps.
        for name, kind, value in (
            ("job_seconds_total", "counter", self._seconds),
            ("objects_total", "counter", self._objects),
            ("jobs_open", "gauge", waiting),
            ("jobs_stored", "gauge", stored),
            ("store_bytes", "gauge", used),
        ):
            lines += [f"# TYPE fastsam3d_{name} {kind}", f"fastsam3d_{name} {value}"]
        return "\n".join([*lines, ""])
