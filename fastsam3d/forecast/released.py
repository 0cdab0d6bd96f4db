"""The rules of the released Fast-SAM3D code as small pure functions, defects included.

They are what the `released_*` techniques, tests and measurements hold the mended rules against.
"""

from __future__ import annotations

import numpy as np


def released_full_steps(steps: int, stride: int, warmup: int = 2) -> list[int]:
    """Computed steps of the sparse-structure stage; the literal 24 is the release's."""
    full, counter = [], 0
    for j in range(steps):
        if j < warmup or counter == stride - 1 or j >= 24:
            full.append(j)
            counter = 0
        else:
            counter += 1
    return full


def released_layout(previous_used: float, newest: float, slope: float, distance: int, beta: float) -> float:
    """Layout velocity of a skipped step: the smoothed value is computed, then overwritten."""
    value = beta * previous_used + (1 - beta) * (newest + slope * distance)
    value = newest + slope * distance
    return value


def released_trajectory(velocities: list[float], stride: int) -> list[float]:
    """Velocities used when `velocities[j]` is the guided velocity at step j: first order, per step, across edges."""
    full = released_full_steps(len(velocities), stride)
    used: list[float] = []
    newest, slope, last = 0.0, 0.0, -1
    for j in range(len(velocities)):
        if j in full:
            slope = 0.0 if last < 0 else (velocities[j] - newest) / (j - last)
            newest, last = velocities[j], j
            used.append(newest)
        else:
            used.append(newest + slope * (j - last))
    return used


def sparse_structure_times(steps: int = 25, rescale: float = 3.0) -> np.ndarray:
    """`t = u / (r - (r - 1) u)` on even u: the grid of the sparse-structure stage for r = 3 (`u / (3 - 2u)`)."""
    u = np.linspace(0.0, 1.0, steps + 1)
    return u / (rescale - (rescale - 1.0) * u)


def guided_steps(times: np.ndarray) -> tuple[bool, ...]:
    """Guidance is on while 1000 t is in [0, 500]."""
    return tuple(bool(t <= 0.5) for t in times[:-1])
