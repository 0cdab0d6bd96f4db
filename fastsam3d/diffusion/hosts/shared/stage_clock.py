"""Seconds of a pipeline's stages, measured from outside."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from fastsam3d.diffusion.sites import Forward


class StageClock:
    """Measures wall-clock seconds by stage. A nested stage is subtracted from the stage around it, so seconds add up.

    Args:
        device: is synchronised at both ends of a stage, and nowhere else.
        rest: name of the time that lies in no stage.
        aliases: other names for a stage (second) inside another (first).
    """

    def __init__(
        self, device: torch.device, rest: str = "other", aliases: Mapping[tuple[str, str], str] | None = None
    ) -> None:
        self.device, self.rest, self.aliases = device, rest, aliases or {}
        self.seconds: dict[str, float] = {}
        self._stages: list[str] = []
        self._last = 0.0

    @property
    def running(self) -> bool:
        """A run is being measured."""
        return len(self._stages) > 0

    @contextmanager
    def run(self) -> Iterator[None]:
        """Measures a run from its beginning. `seconds` are those of the newest run."""
        self.seconds, self._stages, self._last = {}, [self.rest], self._now()
        try:
            yield
            self._charge()
        finally:
            self._stages.clear()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measures a stage of the run in progress; outside a run it does nothing."""
        if not self._stages:
            yield
            return
        self._charge()
        self._stages.append(self.aliases.get((self._stages[-1], name), name))
        try:
            yield
        finally:
            self._charge()
            self._stages.pop()

    def timed(self, name: str) -> Callable[[Forward], Forward]:
        """Makes a function whose time is that of a stage."""

        def make(original: Forward) -> Forward:
            def function(*args: Any, **kwargs: Any) -> Any:
                with self.stage(name):
                    return original(*args, **kwargs)

            return function

        return make

    def _charge(self) -> None:
        now = self._now()
        name = self._stages[-1]
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._last
        self._last = now

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()
