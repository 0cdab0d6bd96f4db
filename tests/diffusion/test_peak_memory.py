"""Peak memory: of what is held inside a measurement, whatever was held before it, around it or beside it."""

from __future__ import annotations

import math
import mmap
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from fastsam3d import accelerate
from fastsam3d.basics import peak_memory
from fastsam3d.basics.peak_memory import PeakMemory
from fastsam3d.diffusion.report import Report

MEBIBYTE = 2**20
HELD = 256
"""MiB; many times what the process may gain or give back by itself during a test (`SLACK`)."""
SLACK = 64
ON_LINUX = pytest.mark.skipif(not peak_memory._reset_process(), reason="the system cannot set the peak back")


@contextmanager
def held(mebibytes: int = HELD) -> Iterator[None]:
    """Resident memory straight from the system.

    An array might get memory that the allocator has kept from one freed before: the process would not grow, and when
    the array is freed it might not shrink.
    """
    memory = mmap.mmap(-1, mebibytes * MEBIBYTE)
    try:
        for start in range(0, len(memory), mmap.PAGESIZE):
            memory[start] = 1  # a page is resident once it is written
        yield
    finally:
        memory.close()


@ON_LINUX
def test_only_what_is_held_inside_counts():
    with PeakMemory("cpu") as empty:
        pass
    with held():
        with PeakMemory("cpu") as first, held():
            pass
        with PeakMemory("cpu") as second:
            pass
    with PeakMemory("cpu") as third:
        pass
    assert empty.mebibytes == empty.size / MEBIBYTE
    for measured, blocks in ((first, 2), (second, 1), (third, 0)):
        assert measured.mebibytes - empty.mebibytes == pytest.approx(blocks * HELD, abs=SLACK)


@ON_LINUX
def test_a_measurement_inside_another_leaves_it_its_peak():
    with PeakMemory("cpu") as outer:
        with held():
            pass
        with PeakMemory("cpu") as inner:
            pass
    assert outer.mebibytes - inner.mebibytes == pytest.approx(HELD, abs=SLACK)


@ON_LINUX
def test_a_measurement_in_another_thread_that_overlaps_leaves_both_their_peak():
    begun, ended = threading.Event(), threading.Event()
    other = PeakMemory("cpu")

    def measure() -> None:
        with other:
            begun.set()
            assert ended.wait(600)

    with PeakMemory("cpu") as early:
        with held():
            pass
        thread = threading.Thread(target=measure)
        thread.start()
        assert begun.wait(600)
    with held(2 * HELD):
        pass
    ended.set()
    thread.join()
    # The first saw one block, the other the larger one that was held after the end of the first.
    assert other.mebibytes - early.mebibytes == pytest.approx(HELD, abs=SLACK)


@ON_LINUX
def test_a_run_reports_its_own_peak_and_not_that_of_earlier_runs(pipeline, picture):
    with accelerate(pipeline, "off") as acceleration:
        assert acceleration.report().peak_memory_bytes == 0
        with held():
            pipeline.run(*picture, seed=1)
        off = acceleration.report().peak_memory_bytes / MEBIBYTE
        pipeline.run(*picture, seed=1)
        assert acceleration.report().peak_memory_bytes / MEBIBYTE == off  # the most of both runs
        acceleration.reset_report()
        assert acceleration.report().peak_memory_bytes == 0
    with accelerate(pipeline, "exact") as acceleration, PeakMemory("cpu") as around:
        pipeline.run(*picture, seed=1)
        exact = acceleration.report().peak_memory_bytes / MEBIBYTE
    assert off - exact == pytest.approx(HELD, abs=SLACK)
    assert 0 < exact <= around.mebibytes


@ON_LINUX
def test_a_run_that_fails_and_a_part_that_runs_alone_are_reported(pipeline, picture):
    def fail(*_: object) -> None:
        with held():
            raise ZeroDivisionError

    with accelerate(pipeline, "off") as acceleration:
        pipeline.run(*picture, seed=1)
        before = acceleration.report().peak_memory_bytes / MEBIBYTE
        handle = pipeline.models["slat_decoder_mesh"].register_forward_pre_hook(fail)
        with pytest.raises(ZeroDivisionError):
            pipeline.run(*picture, seed=1)
        handle.remove()
        assert acceleration.report().peak_memory_bytes / MEBIBYTE - before == pytest.approx(HELD, abs=SLACK)
    assert peak_memory._OPEN == []


def test_where_the_peak_cannot_be_set_back_it_is_unknown(monkeypatch, tmp_path, pipeline, picture):
    """The peak of the whole life of the process would be a wrong number."""
    monkeypatch.setattr(peak_memory, "_CLEAR", tmp_path / "no" / "clear_refs")
    with PeakMemory(torch.device("cpu")) as memory:
        pass
    with accelerate(pipeline, "off") as acceleration:
        pipeline.run(*picture, seed=1)
        report = acceleration.report()
    assert (memory.size, report.peak_memory_bytes) == (0, 0)
    assert math.isnan(memory.mebibytes)
    assert "peak memory" not in str(report)


class CudaStatistics:
    """The two peaks that PyTorch keeps, here of two devices, and their resets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = {"cuda:0": 5, "cuda:1": 7}
        self.peak = {"cuda:0": 50, "cuda:1": 70}
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
        monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", self.reset)
        monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: self.peak[str(device)])

    def reset(self, device: object) -> None:
        self.peak[str(device)] = self.now[str(device)]

    def hold(self, device: str, size: int) -> None:
        self.peak[device] = max(self.peak[device], self.now[device] + size)


def test_on_a_cuda_device_what_pytorch_allocated_there_counts(monkeypatch):
    statistics = CudaStatistics(monkeypatch)
    with PeakMemory(torch.device("cuda:1")) as outer:
        statistics.hold("cuda:1", 20)
        with PeakMemory("cuda:1") as inner, PeakMemory("cuda:0") as other:
            statistics.hold("cuda:1", 10)
            statistics.hold("cuda:0", 1)
    assert (outer.size, inner.size, other.size) == (27, 17, 6)


def test_a_device_that_was_not_used_before_has_nothing_to_be_set_back(monkeypatch):
    statistics = CudaStatistics(monkeypatch)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: pytest.fail("CUDA is not initialised"))
    statistics.peak["cuda:0"] = 3  # what its first use allocates
    with PeakMemory("cuda:0") as memory:
        pass
    assert memory.size == 3


def test_reports_of_pipelines_that_ran_side_by_side_give_the_larger_peak():
    one, other = Report("off", peak_memory_bytes=3), Report("off", peak_memory_bytes=4)
    one.add(other)
    other.add(Report("off", peak_memory_bytes=1))
    assert (one.peak_memory_bytes, other.peak_memory_bytes) == (4, 4)
