"""Wall-clock time and progress of the stages of one run.

Kept in a context variable rather than on the pipeline: stage methods can then be called, replaced and run
from several threads without passing a recorder through every signature.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

import torch

STAGES = (
    "preprocess",
    "ss_condition",
    "sparse_structure",
    "ss_decode",
    "slat_condition",
    "structured_latent",
    "mesh_decode",
    "surface",
    "gaussian_decode",
    "picture_colors",
)
"""Names of the stages, in the order in which they run."""

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, total): (name, 0, 1) when a stage starts, (name, k, n) after each sampler step,
and (name, 1, 1) when it ends."""


class StageClock:
    """Seconds by stage, and the receiver of progress, of one run."""

    def __init__(self, device: torch.device, progress: Progress | None = None) -> None:
        self.device = device
        self.progress = progress
        self.seconds: dict[str, float] = {}

    def now(self) -> float:
        """Returns seconds, after the device has finished what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def add(self, seconds: Mapping[str, float]) -> None:
        """Adds seconds by stage that were measured elsewhere."""
        for name, value in seconds.items():
            self.seconds[name] = self.seconds.get(name, 0.0) + value

    def report(self, stage: str, done: int, total: int) -> None:
        """Passes progress on, if anybody listens."""
        if self.progress is not None:
            self.progress(stage, done, total)


_CLOCK: ContextVar[StageClock | None] = ContextVar("fastsam3d_stage_clock", default=None)


@contextmanager
def recording(clock: StageClock) -> Iterator[StageClock]:
    """Records the stages inside of the `with` block on `clock`."""
    token = _CLOCK.set(clock)
    try:
        yield clock
    finally:
        _CLOCK.reset(token)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Times a stage of the run in progress; does nothing outside a run. Repeated stages add up."""
    clock = _CLOCK.get()
    if clock is None:
        yield
        return
    clock.report(name, 0, 1)
    start = clock.now()
    yield
    clock.add({name: clock.now() - start})
    clock.report(name, 1, 1)


def step_reporter(name: str) -> Callable[[int, int], None] | None:
    """Progress callback for the sampler of a stage: called with (steps done, steps). None outside a run."""
    clock = _CLOCK.get()
    if clock is None or clock.progress is None:
        return None
    return lambda done, total: clock.report(name, done, total)
