"""Chooses how many threads PyTorch gives to an operation on the CPU: a fixed number, or as many as cores are free.

The threads of an operation wait for one another. If other processes keep the cores busy, one of these threads often
waits for a core, and the operation can take longer than on one thread. So fewer threads are used then.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from fastsam3d.basics.threads.limits import core_limits
from fastsam3d.basics.threads.load import LoadMeter

INTERVAL = 0.25
"""Seconds between two measurements of the load: longer than the unit of /proc/stat (0.01 s), shorter than a run."""
FIRST_INTERVAL = 0.04
"""Seconds of the first measurement, which waits; it is only done if something else runs at that moment."""

Function = TypeVar("Function", bound=Callable[..., Any])


def suitable_threads(most: int, free: float) -> int:
    """Returns the number of threads to use.

    Args:
        most: number of threads on an idle machine.
        free: number of cores that no other process keeps busy.
    """
    return max(1, min(most, int(free + 0.5)))


class AdaptedThreads:
    """Context manager: inside it PyTorch computes with this number of threads, and with the earlier one afterwards.

    Without a number, `look` sets fewer threads if other processes keep cores busy, and more when these cores are free
    again. It never sets more than PyTorch had before. On systems other than Linux the load is not known, and the
    number does not change. Several threads may call `look`: each adapts the number that it had at its first call.

    Another number of threads changes results by rounding.

    Attributes:
        least, most: smallest and largest number of threads that were used.

    Args:
        threads: number of threads; None: as many as cores are free.
        adapts: False does not change the number if `threads` is None, for instance for work on a GPU.
        meter: measures the load; by default of the cores of this process.
    """

    def __init__(self, threads: int | None = None, adapts: bool = True, meter: LoadMeter | None = None) -> None:
        self.least = self.most = 0
        self._threads, self._adapts, self._meter = threads, adapts and threads is None, meter
        self._lock, self._own = threading.Lock(), threading.local()
        self._others, self._looked = 0.0, False

    def __enter__(self) -> AdaptedThreads:
        import torch

        self._before = torch.get_num_threads()
        if self._threads is not None:
            torch.set_num_threads(self._threads)
        self.least = self.most = self._threads or self._before
        if self._adapts and self._meter is None:
            self._meter = LoadMeter(core_limits().cores)
        return self

    def __exit__(self, *_: object) -> None:
        import torch

        if torch.get_num_threads() != self._before:
            torch.set_num_threads(self._before)

    def look(self) -> None:
        """Adapts the number of threads to the load, if the last measurement is old enough. Call it between steps."""
        if not self._adapts:
            return
        import torch

        if not hasattr(self._own, "given"):
            # PyTorch keeps a number for each thread; objects that run side by side share the cores.
            self._own.given = self._own.now = torch.get_num_threads()
        if self._own.given <= 1:
            return
        with self._lock:
            share = min(1.0, self._own.given / self._before)
            wanted = suitable_threads(self._own.given, share * self._free_cores())
            if wanted != self._own.now:
                torch.set_num_threads(wanted)
                self._own.now = wanted
            self.least, self.most = (min(self.least, wanted), max(self.most, wanted)) if self._looked else (wanted,) * 2
            self._looked = True

    def before(self, function: Function) -> Function:
        """Returns a function that calls `look` before every call of `function`, for callbacks that report progress."""

        def call(*args: Any, **kwargs: Any) -> Any:
            self.look()
            return function(*args, **kwargs)

        return call  # type: ignore[return-value]

    def _free_cores(self) -> float:
        """Returns the number of cores that no other process keeps busy, from the last long enough measurement."""
        meter = self._meter
        assert meter is not None
        if meter.begun:
            if meter.elapsed < INTERVAL:
                return len(meter.cores) - self._others
        elif meter.begin():
            time.sleep(FIRST_INTERVAL)
        else:  # nothing else runs
            return len(meter.cores) - self._others
        others = meter.others()
        if others is not None:
            self._others = others
        return len(meter.cores) - self._others
