"""The jobs of a running service: counts open jobs, accepts or refuses new ones, and removes old results."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from fastsam3d.cluster.service.guarding import Refused
from fastsam3d.cluster.service.metrics import Metrics
from fastsam3d.cluster.service.options import ServeOptions
from fastsam3d.cluster.service.running import Executor
from fastsam3d.cluster.service.store import WAITING, JobStore
from fastsam3d.errors import UserError
from fastsam3d.jobs.request import Request

logger = logging.getLogger(__name__)

NOT_LOADED = "the pipeline cannot be loaded: the log of the service says why."
EXPIRE_EVERY, EXPIRE_JOBS = 30.0, 16
"""Seconds between two looks for results to remove, and accepted jobs after which there is a look at once."""


class Service:
    """The jobs of a running service.

    Args:
        store: of the jobs.
        executor: runs them.
        settings: of all jobs.
        options: limits.
    """

    def __init__(self, store: JobStore, executor: Executor, settings: Request, options: ServeOptions) -> None:
        self.store, self.executor, self.settings, self.options = store, executor, settings, options
        self.metrics = Metrics()
        self._accepting, self._accepted = 0, 0
        self._look = asyncio.Event()
        waiting = store.waiting()  # what an earlier service had accepted, the oldest first
        self._open: set[str] = set(waiting)
        for name in waiting:
            executor.submit(name)

    def open_jobs(self) -> int:
        """Counts the jobs that wait or run, and adds those that have ended since the last call to the metrics."""
        for name in list(self._open):
            try:
                state = self.store.state(name)
            except UserError:
                state = {"status": "deleted"}
            if state["status"] not in WAITING:
                self._open.discard(name)
                self.metrics.ended(state)
        return len(self._open)

    def place(self) -> None:
        """Reserves a place in the queue for a request that is being read.

        Raises:
            Refused: the queue is full, or no worker can be loaded.
        """
        if self.executor.problem is not None:
            raise Refused(503, NOT_LOADED)
        if self.open_jobs() + self._accepting >= self.options.queue:
            after = self.metrics.seconds_until_free(len(self._open), self.executor.workers)
            text = f"the service is busy: {self.options.queue} jobs wait or run. Try again in {after} s."
            raise Refused(429, text, {"Retry-After": str(after)})
        self._accepting += 1

    def free(self) -> None:
        """Gives the place back."""
        self._accepting -= 1

    def accept(self, name: str) -> None:
        """Accepts a job.

        Raises:
            Refused: its state cannot be written. Then it is removed.
        """
        try:
            self.store.accept(name)
        except UserError as error:
            with contextlib.suppress(UserError):
                self.store.remove(name)
            raise Refused(503, f"{error} Try again later.") from None
        self._open.add(name)
        self.executor.submit(name)
        self._accepted += 1
        if self._accepted % EXPIRE_JOBS == 0:
            self._look.set()

    async def expire(self) -> None:
        """Removes old results again and again, until it is cancelled."""
        while True:
            try:
                await asyncio.to_thread(self.store.expire)
            except OSError as error:  # of the disk: the next look may work
                logger.warning("old results were not removed: %s", error)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._look.wait(), min(EXPIRE_EVERY, self.store.keep_seconds / 2))
            self._look.clear()
