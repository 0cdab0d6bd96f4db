"""Runs one job at a time on a device: a queue with a limit, a time-out, progress and cancelling; no web code."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from fastsam3d.errors import UserError

logger = logging.getLogger(__name__)

WAITING, RUNNING, DONE, FAILED, STOPPED = "waiting", "running", "done", "failed", "stopped"
CAPACITY = 16
TIMEOUT = 600.0


class Stop(BaseException):
    """A job was cancelled or ran out of time; raised inside that job.

    It is not an `Exception`. So it also stops work that continues when one of its parts fails.
    """


class Job:
    """One piece of work. Made by `JobQueue.submit`; all methods can be called from any thread."""

    def __init__(self, work: Callable[[Job], Any], queue: JobQueue) -> None:
        self.state = WAITING
        self.progress: Any = None
        self._work = work
        self._queue = queue
        self._result: Any = None
        self._message = ""
        self._cancelled = False
        self._started: float | None = None
        self._finished: float | None = None
        self._ended = threading.Event()

    @property
    def ended(self) -> bool:
        """Tells whether the job is done, failed or stopped."""
        return self._ended.is_set()

    @property
    def position(self) -> int:
        """Returns the number of jobs that run before this one; 0 when it runs or has ended."""
        return self._queue.position(self)

    @property
    def seconds(self) -> float:
        """Returns the seconds since the job began to run; after its end, the seconds that it ran."""
        if self._started is None:
            return 0.0
        return (self._finished or time.monotonic()) - self._started

    @property
    def message(self) -> str:
        """Says why the job failed or stopped, for a person."""
        return self._message

    def report(self, progress: Any) -> None:
        """Stores the progress. The work calls this method.

        Raises:
            Stop: the job was cancelled, or its time is over.
        """
        self.progress = progress
        if self._cancelled:
            raise Stop("Stopped.")
        if self.seconds > self._queue.timeout:
            raise Stop(
                f"Stopped after {self._queue.timeout:.0f} s, the time that one run may take. Mark fewer objects, try "
                "fewer seeds, or start the demo with a larger timeout=SECONDS."
            )

    def cancel(self) -> None:
        """Stops the job: at once if it waits, else when it next reports progress."""
        self._cancelled = True
        self._queue.forget(self)

    def wait(self, seconds: float | None = None) -> bool:
        """Waits for the end of the job; returns whether the job ended in time."""
        return self._ended.wait(seconds)

    def result(self) -> Any:
        """Returns the result of the work.

        Raises:
            UserError: the job failed or was stopped.
        """
        self._ended.wait()
        if self.state != DONE:
            raise UserError(self._message)
        return self._result

    def _run(self) -> None:
        self.state, self._started = RUNNING, time.monotonic()
        try:
            self._result = self._work(self)
        except Stop as stop:
            self._end(STOPPED, str(stop))
        except UserError as error:
            self._end(FAILED, str(error))
        except Exception as error:
            logger.exception("a job of the demo failed")
            memory = type(error).__name__ == "OutOfMemoryError"
            self._end(
                FAILED,
                "The device has not enough memory for this. Mark fewer objects, or start with precision=bfloat16."
                if memory
                else "An error happened in the program. The terminal in which the demo was started shows it.",
            )
        else:
            self._end(DONE, "")

    def _end(self, state: str, message: str) -> None:
        self._finished = time.monotonic()
        self._message, self.state = message, state
        self._ended.set()


class JobQueue:
    """Runs jobs one after the other in a thread of its own.

    Args:
        capacity: jobs that may wait; more are refused.
        timeout: seconds that one job may run. It is checked when the job reports progress, because work on a device
            cannot be stopped at other times.
    """

    def __init__(self, capacity: int = CAPACITY, timeout: float = TIMEOUT) -> None:
        self.capacity, self.timeout = capacity, timeout
        self._waiting: deque[Job] = deque()
        self._running: Job | None = None
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="fastsam3d-device", daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[Job], Any]) -> Job:
        """Queues work, a function of its job, whose `report` it calls often.

        Raises:
            UserError: too many jobs are waiting.
        """
        job = Job(work, self)
        with self._changed:
            if self._closed:
                raise UserError("The demo is shutting down.")
            if len(self._waiting) >= self.capacity:
                raise UserError(f"{len(self._waiting)} runs are waiting already. Try again in a few minutes.")
            self._waiting.append(job)
            self._changed.notify()
        return job

    def position(self, job: Job) -> int:
        """Returns the number of jobs that run before this one."""
        with self._changed:
            if job not in self._waiting:
                return 0
            return self._waiting.index(job) + (self._running is not None)

    def forget(self, job: Job) -> None:
        """Removes a waiting job from the queue."""
        with self._changed:
            if job not in self._waiting:
                return
            self._waiting.remove(job)
        job._end(STOPPED, "Stopped.")

    def close(self, patience: float = 10.0) -> None:
        """Stops everything, and waits for the running job to notice, up to `patience` seconds."""
        with self._changed:
            self._closed = True
            jobs = [*self._waiting, *([self._running] if self._running else [])]
            self._changed.notify()
        for job in jobs:
            job.cancel()
        if self._thread is not threading.current_thread():
            self._thread.join(patience)

    def _serve(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                self._running = job = self._waiting.popleft()
            job._run()
            with self._changed:
                self._running = None
