"""Measures how many cores other processes keep busy, from the counters of Linux in /proc/stat (see proc_stat(5))."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection
from pathlib import Path

STAT = Path("/proc/stat")
BUSY = (0, 1, 2, 5, 6, 7)
"""Fields of a core that count as work: user, nice, system, interrupts (two kinds), and time taken by other virtual
machines. The others are idle time, and guests, whose time is in user already."""


def busy_seconds(text: str, cores: Collection[int], ticks: float) -> float | None:
    """Returns the seconds that these cores have worked since the machine was started; None if the text does not tell.

    Args:
        text: content of /proc/stat.
        ticks: number of its units in a second.
    """
    wanted, total, found = {f"cpu{core}" for core in cores}, 0, False
    for line in text.splitlines():
        name, *fields = line.split() or [""]
        if name in wanted:
            try:
                total += sum(int(fields[index]) for index in BUSY)
            except (ValueError, IndexError):
                return None
            found = True
    return total / ticks if found else None


def running_processes(text: str) -> int | None:
    """Returns the number of threads of all processes that run or wait for a core; None if the text does not tell."""
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if name == "procs_running":
            return int(value) if value.strip().isdecimal() else None
    return None


class LoadMeter:
    """Measures the cores that others keep busy between two calls.

    Args:
        cores: numbers of the cores that are measured.
        read: returns the content of /proc/stat.
        clock: returns the time in seconds.
        own: returns the CPU time of this process in seconds, all threads together.
    """

    def __init__(
        self,
        cores: Collection[int],
        read: Callable[[], str] = STAT.read_text,
        clock: Callable[[], float] = time.perf_counter,
        own: Callable[[], float] = time.process_time,
    ) -> None:
        self.cores = cores
        self._read, self._clock, self._own = read, clock, own
        self._ticks = float(os.sysconf("SC_CLK_TCK")) if hasattr(os, "sysconf") else 100.0
        self._before: tuple[float, float, float] | None = None

    def begin(self) -> bool:
        """Begins a measurement; returns whether other threads run or wait for a core now. False if it is not known."""
        try:
            text = self._read()
        except OSError:  # not Linux
            self._before = None
            return False
        self._note(text)
        return (running_processes(text) or 0) > 1

    @property
    def begun(self) -> bool:
        """Tells whether a measurement has begun."""
        return self._before is not None

    @property
    def elapsed(self) -> float:
        """Returns the seconds since the measurement began; 0 before the first one."""
        return 0.0 if self._before is None else self._clock() - self._before[0]

    def others(self) -> float | None:
        """Returns how many cores others kept busy since the measurement began; begins the next. None: not known."""
        before = self._before
        try:
            now = self._note(self._read())
        except OSError:
            return None
        if before is None or now is None or now[0] <= before[0]:
            return None
        seconds, busy, own = (after - earlier for after, earlier in zip(now, before, strict=True))
        return min(max((busy - own) / seconds, 0.0), float(len(self.cores)))

    def _note(self, text: str) -> tuple[float, float, float] | None:
        busy = busy_seconds(text, self.cores, self._ticks)
        self._before = None if busy is None else (self._clock(), busy, self._own())
        return self._before
