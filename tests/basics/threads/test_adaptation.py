"""The number of threads that a load leaves, and PyTorch's number in and after a job."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from fastsam3d.basics.threads import adaptation
from fastsam3d.basics.threads.adaptation import FIRST_INTERVAL, INTERVAL, AdaptedThreads, suitable_threads


@pytest.mark.parametrize(
    ("most", "free", "expected"),
    [(2, 2.0, 2), (2, 1.5, 2), (2, 1.4, 1), (2, 0.0, 1), (4, 8.0, 4), (8, 7.1, 7), (8, 5.6, 6), (1, 0.2, 1)],
)
def test_threads_are_the_free_cores_rounded_and_at_least_one(most: int, free: float, expected: int) -> None:
    assert suitable_threads(most, free) == expected


class Meter:
    """A meter of four cores whose load is set."""

    cores = (0, 1, 2, 3)

    def __init__(self, load: float = 0.0) -> None:
        self.load, self.begun, self.elapsed, self.slept = load, False, 0.0, 0.0

    def begin(self) -> bool:
        self.begun = True
        return self.load > 0

    def others(self) -> float:
        self.elapsed = 0.0
        return self.load

    def sleep(self, seconds: float) -> None:
        self.slept += seconds


@pytest.fixture
def four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    assert torch.get_num_threads() == 4  # whatever a job did, it put the number back
    torch.set_num_threads(before)


@pytest.fixture
def meter(monkeypatch: pytest.MonkeyPatch) -> Meter:
    meter = Meter()
    monkeypatch.setattr(adaptation.time, "sleep", meter.sleep)
    return meter


@pytest.mark.usefixtures("four_threads")
def test_a_number_is_a_number(meter: Meter) -> None:
    meter.load = 4.0
    with AdaptedThreads(3, meter=meter) as threads:
        threads.look()
        assert torch.get_num_threads() == 3
    assert (threads.least, threads.most) == (3, 3) and not meter.begun


@pytest.mark.usefixtures("four_threads")
def test_threads_follow_the_load_both_ways(meter: Meter) -> None:
    meter.load = 3.0
    with AdaptedThreads(meter=meter) as threads:
        threads.look()
        assert torch.get_num_threads() == 1
        assert meter.slept == FIRST_INTERVAL
        meter.load = 0.0
        threads.look()
        assert torch.get_num_threads() == 1  # too soon
        meter.elapsed = INTERVAL
        assert threads.before(lambda: torch.get_num_threads())() == 4
        meter.load, meter.elapsed = 1.8, 1.0
        threads.look()
        assert torch.get_num_threads() == 2
    assert (threads.least, threads.most) == (1, 4)
    assert meter.slept == FIRST_INTERVAL


@pytest.mark.usefixtures("four_threads")
def test_an_idle_machine_costs_no_waiting(meter: Meter) -> None:
    with AdaptedThreads(meter=meter) as threads:
        threads.look()
        assert torch.get_num_threads() == 4
    assert meter.slept == 0 and (threads.least, threads.most) == (4, 4)


@pytest.mark.usefixtures("four_threads")
def test_the_load_counts_for_nothing_on_a_gpu(meter: Meter) -> None:
    meter.load = 4.0
    with AdaptedThreads(adapts=False, meter=meter) as threads:
        threads.look()
        assert torch.get_num_threads() == 4 and not meter.begun


@pytest.mark.usefixtures("four_threads")
def test_objects_side_by_side_share_the_free_cores(meter: Meter) -> None:
    meter.load = 2.2

    def work(own: int) -> int:
        torch.set_num_threads(own)
        threads.look()
        return torch.get_num_threads()

    with AdaptedThreads(meter=meter) as threads:
        for own, expected in ((2, 1), (1, 1), (4, 2)):  # of 1.8 free cores: 0.9, one at least, 1.8
            with ThreadPoolExecutor(1) as pool:
                assert pool.submit(work, own).result() == expected
        torch.set_num_threads(4)


@pytest.mark.usefixtures("four_threads")
def test_the_number_is_put_back_after_an_error(meter: Meter) -> None:
    meter.load = 4.0
    with pytest.raises(KeyError), AdaptedThreads(meter=meter) as threads:
        threads.before({}.pop)("absent")
