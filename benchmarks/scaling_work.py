"""Work that sleeps a moment an item and writes nothing: what is left is the engine."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from fastsam3d.cluster.batch.items import Item
from fastsam3d.cluster.work.fetching import Fetched


@dataclass(frozen=True)
class SleepingWork:
    """Sleeps `seconds` an item."""

    seconds: float
    settings: str = "sleeping"

    @contextmanager
    def opened(self) -> Iterator[SleepingWork]:
        yield self

    def load(self) -> None:
        """Has nothing to load."""

    def finished(self, item: Item) -> dict[str, Any] | None:
        """Has no results."""
        return None

    def run(self, fetched: Fetched) -> dict[str, Any]:
        """Sleeps; returns facts as a reconstruction has them."""
        time.sleep(self.seconds)
        stages = {"sparse_structure": self.seconds / 2, "structured_latent": self.seconds / 2}
        numbers = {"objects": 1, "failed_objects": 0, "evaluations": 50, "faces": 20000, "bytes": 500000}
        return {
            "error": None,
            **numbers,
            "seconds": self.seconds,
            "mask_iou": 0.9,
            "stage_seconds": stages,
            "files": {},
        }
