"""Chooses the procedural objects that are measured: seeds that training never saw, other ones for `tune`."""

from __future__ import annotations

import hashlib

from fastsam3d.procedural import HELD_OUT_SEED

CALIBRATION = 1_600_000_000
"""Objects from this seed on are for `tune`; no seed of the benchmark reaches so far."""


def object_seeds(
    seed: int, count: int, *, warmup: int = 0, first_of_all: int = HELD_OUT_SEED
) -> tuple[list[int], list[int]]:
    """Seeds of the held-out objects that belong to a benchmark seed, and of its warm-up objects."""
    digest = hashlib.sha256(f"fastsam3d benchmark {seed}".encode()).digest()
    first = first_of_all + 1_000 * (1 + int.from_bytes(digest[:8], "big") % 500_000)
    return [first + i for i in range(count)], [first - 1 - i for i in range(warmup)]
