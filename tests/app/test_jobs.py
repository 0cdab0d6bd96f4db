"""The queue: order, limits, progress, stopping, failures."""

from __future__ import annotations

import threading

import pytest
from app_stand_in import PATIENCE

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
    queue, running, order, submitted = JobQueue(), [], [], threading.Event()

    def work(name: str):
        def do(job: Job) -> str:
            running.append(name)
            assert submitted.wait(PATIENCE)
            assert len(running) == 1
            order.append(running.pop())
            return name

        return do

    jobs = [queue.submit(work(name)) for name in "abc"]
    submitted.set()
    assert [job.result() for job in jobs] == ["a", "b", "c"] and order == ["a", "b", "c"]
    assert all(job.state == DONE and job.ended and job.position == 0 for job in jobs)
    queue.close(PATIENCE)


def test_waiting_jobs_know_their_place_and_too_many_are_refused(queue: JobQueue) -> None:
    started, release = threading.Event(), threading.Event()
    first = queue.submit(blocking(started, release))
    assert started.wait(PATIENCE)
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
    assert started.wait(PATIENCE)
    job.cancel()
    assert job.wait(PATIENCE) and job.state == STOPPED
    with pytest.raises(UserError, match=r"Stopped\."):
        job.result()
    assert queue.submit(lambda _: "next").result() == "next"


def test_a_waiting_job_is_stopped_at_once_and_never_runs(queue: JobQueue) -> None:
    started, release, ran = threading.Event(), threading.Event(), []
    queue.submit(blocking(started, release))
    assert started.wait(PATIENCE)
    waiting = queue.submit(lambda job: ran.append(1))
    waiting.cancel()
    assert waiting.ended and waiting.state == STOPPED
    release.set()
    assert queue.submit(lambda job: "after").result() == "after" and not ran


def test_time_out_says_what_to_do() -> None:
    queue = JobQueue(timeout=0.05)
    job = queue.submit(blocking(threading.Event(), threading.Event()))
    assert job.wait(PATIENCE) and job.state == STOPPED and "timeout=SECONDS" in job.message
    queue.close(PATIENCE)


def test_stopping_is_not_swallowed_by_work_that_survives_failures(queue: JobQueue) -> None:
    """A scene goes on when one of its objects fails; it must not take a stop for such a failure."""
    started, cancelled = threading.Event(), threading.Event()

    def work(job: Job) -> None:
        started.set()
        assert cancelled.wait(PATIENCE)
        for _ in range(3):
            try:
                job.report(None)
            except Exception:
                continue

    job = queue.submit(work)
    assert started.wait(PATIENCE)
    job.cancel()
    cancelled.set()
    assert job.wait(PATIENCE) and job.state == STOPPED


def test_failures_are_told_and_the_queue_goes_on(queue: JobQueue, caplog: pytest.LogCaptureFixture) -> None:
    def unusable(job: Job) -> None:
        raise UserError("The mask is empty.")

    def defect(job: Job) -> None:
        raise ZeroDivisionError("/secret/path")

    first = queue.submit(unusable)
    assert first.wait(PATIENCE) and (first.state, first.message) == (FAILED, "The mask is empty.")
    second = queue.submit(defect)
    assert second.wait(PATIENCE) and second.state == FAILED
    assert "/secret/path" not in second.message and "ZeroDivisionError" in caplog.text
    assert queue.submit(lambda job: 1).result() == 1


def test_closing_stops_what_runs_and_what_waits() -> None:
    queue = JobQueue()
    started = threading.Event()
    running = queue.submit(blocking(started, threading.Event()))
    assert started.wait(PATIENCE)
    waiting = queue.submit(lambda job: 1)
    queue.close(PATIENCE)
    assert running.state == waiting.state == STOPPED
    with pytest.raises(UserError, match="shutting down"):
        queue.submit(lambda job: 1)
