"""The queue: order, limits, progress, stopping, failures."""

from __future__ import annotations

import threading
import time

import pytest

from fastsam3d.app.runs.queue import DONE, FAILED, RUNNING, STOPPED, WAITING, Job, JobQueue
from fastsam3d.errors import UserError


def blocking(started: threading.Event, release: threading.Event):
    """Work that reports until it is released."""

    def work(job: Job) -> str:
        started.set()
        while not release.wait(0.01):
            job.report("working")
        return "finished"

    return work


def test_jobs_run_one_at_a_time_in_order() -> None:
    queue, running, order = JobQueue(), [], []

    def work(name: str):
        def do(job: Job) -> str:
            running.append(name)
            assert len(running) == 1
            time.sleep(0.02)
            order.append(running.pop())
            return name

        return do

    jobs = [queue.submit(work(name)) for name in "abc"]
    assert [job.result() for job in jobs] == ["a", "b", "c"] and order == ["a", "b", "c"]
    assert all(job.state == DONE and job.ended and job.position == 0 for job in jobs)
    queue.close()


def test_waiting_jobs_know_their_place_and_too_many_are_refused(queue: JobQueue) -> None:
    started, release = threading.Event(), threading.Event()
    first = queue.submit(blocking(started, release))
    assert started.wait(5)
    second, third = queue.submit(lambda job: 2), queue.submit(lambda job: 3)
    assert (first.state, second.state) == (RUNNING, WAITING)
    assert (first.position, second.position, third.position) == (0, 1, 2)
    with pytest.raises(UserError, match="2 runs are waiting"):
        queue.submit(lambda job: 4)
    release.set()
    assert third.result() == 3


def test_a_running_job_is_stopped_when_it_reports(queue: JobQueue) -> None:
    started = threading.Event()
    job = queue.submit(blocking(started, threading.Event()))
    assert started.wait(5)
    job.cancel()
    assert job.wait(5) and job.state == STOPPED
    with pytest.raises(UserError, match=r"Stopped\."):
        job.result()
    assert queue.submit(lambda _: "next").result() == "next"


def test_a_waiting_job_is_stopped_at_once_and_never_runs(queue: JobQueue) -> None:
    started, release, ran = threading.Event(), threading.Event(), []
    queue.submit(blocking(started, release))
    assert started.wait(5)
    waiting = queue.submit(lambda job: ran.append(1))
    waiting.cancel()
    assert waiting.ended and waiting.state == STOPPED
    release.set()
    assert queue.submit(lambda job: "after").result() == "after" and not ran


def test_time_out_says_what_to_do() -> None:
    queue = JobQueue(timeout=0.05)
    job = queue.submit(blocking(threading.Event(), threading.Event()))
    assert job.wait(5) and job.state == STOPPED and "timeout=SECONDS" in job.message
    queue.close()


def test_stopping_is_not_swallowed_by_work_that_survives_failures(queue: JobQueue) -> None:
    """A scene goes on when one of its objects fails; it must not take a stop for such a failure."""
    started = threading.Event()

    def work(job: Job) -> None:
        started.set()
        for _ in range(1000):
            try:
                job.report(None)
                time.sleep(0.005)
            except Exception:
                continue

    job = queue.submit(work)
    assert started.wait(5)
    job.cancel()
    assert job.wait(2) and job.state == STOPPED


def test_failures_are_told_and_the_queue_goes_on(queue: JobQueue, caplog: pytest.LogCaptureFixture) -> None:
    def unusable(job: Job) -> None:
        raise UserError("The mask is empty.")

    def defect(job: Job) -> None:
        raise ZeroDivisionError("/secret/path")

    first = queue.submit(unusable)
    assert first.wait(5) and (first.state, first.message) == (FAILED, "The mask is empty.")
    second = queue.submit(defect)
    assert second.wait(5) and second.state == FAILED
    assert "/secret/path" not in second.message and "ZeroDivisionError" in caplog.text
    assert queue.submit(lambda job: 1).result() == 1


def test_closing_stops_what_runs_and_what_waits() -> None:
    queue = JobQueue()
    started = threading.Event()
    running = queue.submit(blocking(started, threading.Event()))
    assert started.wait(5)
    waiting = queue.submit(lambda job: 1)
    queue.close()
    assert running.state == waiting.state == STOPPED
    with pytest.raises(UserError, match="shutting down"):
        queue.submit(lambda job: 1)
