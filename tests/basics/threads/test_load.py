"""The load that other processes make, from texts of /proc/stat."""

from __future__ import annotations

import os

import pytest

from fastsam3d.basics.threads.load import LoadMeter, busy_seconds, running_processes

STAT = """\
cpu  999 999 999 999 999 999 999 999 0 0
cpu0 100 20 30 1000 50 5 6 7 90 80
cpu1 200 0 40 1000 50 0 0 10 0 0
cpu10 7000 0 0 0 0 0 0 0 0 0
intr 5 0 0
procs_running 3
procs_blocked 1
"""


def test_busy_time_is_that_of_the_cores_without_idle_time_and_guests() -> None:
    assert busy_seconds(STAT, (0,), 100.0) == pytest.approx((100 + 20 + 30 + 5 + 6 + 7) / 100)
    assert busy_seconds(STAT, (0, 1), 100.0) == pytest.approx(1.68 + 2.5)


@pytest.mark.parametrize("text", ["", "cpu 1 2 3 4\n", "cpu0 1 2 3\n", "cpu0 a b c d e f g h\n"])
def test_texts_that_do_not_tell(text: str) -> None:
    assert busy_seconds(text, (0,), 100.0) is None
    assert running_processes(text) is None


def test_running_processes() -> None:
    assert running_processes(STAT) == 3


class Machine:
    """Two cores with settable counters."""

    def __init__(self) -> None:
        self.clock = self.own = 0.0
        self.busy, self.running = [0.0, 0.0], 1
        ticks = os.sysconf("SC_CLK_TCK")
        self.ticks = ticks

    def read(self) -> str:
        rows = [f"cpu{core} {round(seconds * self.ticks)} 0 0 0 0 0 0 0" for core, seconds in enumerate(self.busy)]
        return "\n".join([*rows, f"procs_running {self.running}"])

    def meter(self) -> LoadMeter:
        return LoadMeter((0, 1), self.read, lambda: self.clock, lambda: self.own)


def test_others_are_what_the_process_itself_did_not_use() -> None:
    machine = Machine()
    meter = machine.meter()
    assert not meter.begun and meter.others() is None  # nothing to compare with
    assert meter.begun and meter.elapsed == 0
    machine.clock, machine.own, machine.busy = 2.0, 0.5, [2.0, 1.5]
    assert meter.elapsed == 2.0
    assert meter.others() == pytest.approx((3.5 - 0.5) / 2.0)
    machine.clock, machine.own, machine.busy = 4.0, 4.5, [4.0, 3.5]
    assert meter.others() == 0.0  # all of it is our own


def test_a_measurement_tells_at_once_whether_anything_else_runs() -> None:
    machine = Machine()
    meter = machine.meter()
    assert not meter.begin()
    machine.running = 2
    assert meter.begin()


def test_nothing_is_known_on_other_systems() -> None:
    def missing() -> str:
        raise FileNotFoundError

    meter = LoadMeter((0, 1), missing)
    assert not meter.begin() and not meter.begun and meter.others() is None
