"""Runs the jobs of the service: in a thread of this process, or with the same code in replicas of Ray Serve."""

from __future__ import annotations

import logging
import queue
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Protocol

from fastsam3d.cluster.service.store import DONE, FAILED, INPUTS, RESULTS, RUNNING, WAITING, JobStore, discard
from fastsam3d.cluster.service.uploads import request_of, without_paths
from fastsam3d.cluster.work.reconstruction import facts_of
from fastsam3d.errors import UserError
from fastsam3d.jobs.request import Request

logger = logging.getLogger(__name__)

EVERY = 0.25
"""Seconds between two notes of progress."""
MOST_DEATHS = 2
"""Workers that a job may kill."""
AGAIN = 0.5
"""Seconds before a job whose worker failed is tried again."""


class Executor(Protocol):
    """Runs the jobs that were accepted.

    Attributes:
        workers: number of jobs that run at the same time, at least.
        problem: why no worker can be loaded; None if one can, or if that is not known yet.
    """

    workers: int
    problem: Exception | None

    def submit(self, name: str) -> None:
        """Runs a job as soon as there is a worker for it."""

    def ready(self) -> bool:
        """Tells whether a worker has loaded its pipeline."""

    def close(self) -> None:
        """Ends the workers."""


class Stopped(BaseException):
    """A job was deleted, or took too long. Not an `Exception`: a scene would report that as an object's error."""


class JobListener:
    """Writes the progress of a job to its state. Stops a job that was deleted or takes too long."""

    def __init__(self, store: JobStore, name: str, seconds: float) -> None:
        self._store, self._name = store, name
        self._limit, self._end = seconds, time.monotonic() + seconds
        self._next = 0.0

    def step(self, text: str, done: int | None = None, total: int | None = None) -> None:
        """Notes a step.

        Raises:
            Stopped: see the class.
        """
        now = time.monotonic()
        if now > self._end:
            raise Stopped(f"the job took longer than {self._limit:g} seconds and was stopped: use a smaller input.")
        if now < self._next:
            return
        self._next = now + EVERY
        if self._store.cancelled(self._name):
            raise Stopped("the job was deleted.")
        self._store.update(self._name, progress={"stage": text, "done": done, "total": total})

    def warn(self, text: str) -> None:
        """Does nothing: the report has the warnings."""

    def note(self, text: str) -> None:
        """Does nothing."""


class JobRunner:
    """A loaded pipeline that runs jobs.

    Args:
        store: of the jobs.
        request: settings of the service.
        seconds: that a job may take.
    """

    def __init__(self, store: JobStore, request: Request, seconds: float) -> None:
        from fastsam3d.jobs.running import accelerated

        self._store, self._request, self._seconds = store, request, seconds
        self._stack = ExitStack()
        self.pipeline: Any = self._stack.enter_context(accelerated(request))

    def close(self) -> None:
        """Removes the acceleration."""
        self._stack.close()

    def run(self, name: str, pipeline: Any = None) -> None:
        """Runs a job to its end and writes the outcome to its state. After two killed workers a job is not tried again.

        Args:
            pipeline: used in place of the runner's own.

        Raises:
            UserError: the state cannot be written.
        """
        try:
            state = self._store.state(name)
        except UserError:
            return  # deleted while it waited
        if state["status"] not in WAITING:
            return
        if self._store.cancelled(name):
            discard(self._store.path / name)  # deleted while a worker ran it that has died since
            return
        begun = state.get("begun", 0)
        if begun >= MOST_DEATHS:
            self._store.update(name, status=FAILED, error=f"{begun} workers died while they computed this job.")
            return
        start = time.perf_counter()
        self._store.update(name, status=RUNNING, begun=begun + 1)
        try:
            report, paths = self._job(name, pipeline or self.pipeline)
            facts = facts_of(report, {path.name: path.stat().st_size for path in paths})
            done = {key: facts[key] for key in ("files", "objects", "failed_objects", "error")}
            values = {**done, "status": DONE, "warnings": report["warnings"]}
        except Stopped as error:
            values = {"status": FAILED, "error": str(error)}
        except UserError as error:
            values = {"status": FAILED, "error": without_paths(str(error), self._store.path / name / INPUTS)}
        except Exception as error:
            logger.exception("the job %s failed", name)
            values = {"status": FAILED, "error": f"something went wrong inside ({type(error).__name__})."}
        if self._store.cancelled(name):
            discard(self._store.path / name)
            return
        try:
            if self._store.state(name)["status"] not in WAITING:
                return  # another worker had the job too, and has ended it
        except UserError:
            return  # deleted just now
        self._store.update(name, **values, progress=None, seconds=time.perf_counter() - start)
        shutil.rmtree(self._store.path / name / INPUTS, ignore_errors=True)
        if self._store.cancelled(name):  # deleted after the look above: `JobStore.remove` took it for a running one
            discard(self._store.path / name)

    def _job(self, name: str, pipeline: Any) -> tuple[dict[str, Any], list[Any]]:
        from fastsam3d.jobs.objects import run_object
        from fastsam3d.jobs.scenes import run_scene
        from fastsam3d.jobs.writing.lock import FolderTaken

        request = request_of(self._store, name, self._request)
        run: Any = run_scene if self._store.job(name)["kind"] == "scene" else run_object
        listener = JobListener(self._store, name, self._seconds)
        result: Any = None
        while result is None:
            try:
                result = run(request, pipeline, listener)
            except FolderTaken:  # by a worker that was given the job before the ingress died, or that is being killed
                listener.step("waiting")
                time.sleep(EVERY)
        inside = self._store.path / name
        report = result.report | {"warnings": [without_paths(t, inside / INPUTS) for t in result.report["warnings"]]}
        (inside / RESULTS / "report.json").unlink(missing_ok=True)  # it names paths of this machine
        return report, [path for path in result.paths if path.name != "report.json"]


class LocalExecutor:
    """The plain executor: one worker, a thread of this process.

    Args:
        make: makes the runner, in the thread.
    """

    workers = 1

    def __init__(self, make: Callable[[], JobRunner]) -> None:
        self._make, self._ready = make, threading.Event()
        self._queue: queue.Queue[str | None] = queue.Queue()
        self._closed = threading.Event()
        self.problem: Exception | None = None
        self._thread = threading.Thread(target=self._work, daemon=True, name="service")
        self._thread.start()

    def submit(self, name: str) -> None:
        """See `Executor`."""
        self._queue.put(name)

    def ready(self) -> bool:
        """See `Executor`."""
        return self._ready.is_set()

    def close(self) -> None:
        """See `Executor`. The job that runs may end; those that wait stay in the store, for the next service."""
        self._closed.set()
        self._queue.put(None)
        self._thread.join(timeout=60)

    def _work(self) -> None:
        try:
            runner = self._make()
        except Exception as error:
            # For who runs the service: its text may name paths of this machine, which clients must not see.
            logger.error("the pipeline cannot be loaded: %s", str(error) or type(error).__name__)
            self.problem = error
            return
        self._ready.set()
        while (name := self._queue.get()) is not None and not self._closed.is_set():
            try:
                runner.run(name)
            except Exception as error:  # the state of the job cannot be written: it would be lost, and the thread too
                logger.warning("the job %s is tried again: %s", name, error)
                time.sleep(AGAIN)
                self._queue.put(name)
        runner.close()
