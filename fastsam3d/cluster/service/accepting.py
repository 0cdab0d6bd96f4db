"""The jobs of a running service: counts open jobs, accepts or refuses new ones, and removes old results."""

from __future__ import annotations

import asyncio

from fastsam3d.cluster.service.guarding import Refused
from fastsam3d.cluster.service.metrics import Metrics
from fastsam3d.cluster.service.options import ServeOptions
from fastsam3d.cluster.service.running import Executor
from fastsam3d.cluster.service.store import WAITING, JobStore
from fastsam3d.errors import UserError
from fastsam3d.jobs.request import Request

EXPIRE_EVERY = 30.0
"""Seconds between two looks for results that are too old."""


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
        self._accepting = 0
        self._open: set[str] = set(store.waiting())
        for name in sorted(self._open):
            executor.submit(name)  # what an earlier service had accepted

    def open_jobs(self) -> int:
        """Jobs that wait or run. Counts jobs that have ended since the last call."""
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
            raise Refused(503, str(self.executor.problem))
        if self.open_jobs() + self._accepting >= self.options.queue:
            after = self.metrics.seconds_until_free(len(self._open), self.executor.workers)
            text = f"the service is busy: {self.options.queue} jobs wait or run. Try again in {after} s."
            raise Refused(429, text, {"Retry-After": str(after)})
        self._accepting += 1

    def free(self) -> None:
        """Gives the place back."""
        self._accepting -= 1

    def accept(self, name: str) -> None:
        """Accepts a job."""
        self.store.accept(name)
        self._open.add(name)
        self.executor.submit(name)

    async def expire(self) -> None:
        """Removes old results again and again, until it is cancelled."""
        while True:
            await asyncio.to_thread(self.store.expire)
            await asyncio.sleep(min(EXPIRE_EVERY, self.store.keep_seconds / 2))
