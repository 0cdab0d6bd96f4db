"""Objects of a scene side by side on the cores of a CPU, each on a pipeline of its own over the same weights.

The tensors of a small network are too small to keep several cores busy: two threads inside its operations are hardly
faster than one. Whole objects are. While they run, every operation gets its share of the threads alone.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import torch

from fastsam3d.sam3d.pipeline.pipeline import Pipeline
from fastsam3d.sam3d.pipeline.timing import Progress

Result = TypeVar("Result")
Work = Callable[[Pipeline, Callable[[Progress | None], Progress]], Result]
"""What is done for an object: gets a pipeline and a maker of the progress callback to run it with."""


class _Stopped(BaseException):
    """Nobody waits for the result of this run any more; raised inside it."""


class SideBySide:
    """Runs work on several pipelines at once, in a thread for each; on one, in the calling thread.

    Which of them takes an object changes nothing, because they are alike. The number of threads that each gives to
    an operation changes results by rounding, as it does for a single run.

    Args:
        pipelines: with the same weights and settings, one for each worker.
    """

    def __init__(self, pipelines: Sequence[Pipeline]) -> None:
        self._pipelines = list(pipelines)
        self.count = len(self._pipelines)
        self._reporting, self._stopped = threading.Lock(), threading.Event()

    def map(self, works: Sequence[Work[Result]]) -> Generator[Result, None, None]:
        """Results in the order of the works.

        An exception of one of them is raised in its turn; then, or when the iteration is left, those that have not
        begun never do, and those that run end at their next step.
        """
        if self.count == 1:
            yield from (work(self._pipelines[0], self._reported) for work in works)
            return
        threads = torch.get_num_threads()
        each = max(1, threads // self.count)
        free: queue.SimpleQueue[Pipeline] = queue.SimpleQueue()
        for pipeline in self._pipelines:
            free.put(pipeline)

        def run(work: Work[Result]) -> Result:
            pipeline = free.get()
            try:
                return work(pipeline, self._reported)
            finally:
                free.put(pipeline)

        # PyTorch keeps the number in the thread as well as in the process, so each worker sets its own.
        pool = ThreadPoolExecutor(self.count, "object", torch.set_num_threads, (each,))
        try:
            for future in [pool.submit(run, work) for work in works]:
                yield future.result()
        finally:
            self._stopped.set()
            pool.shutdown(cancel_futures=True)
            self._stopped.clear()
            torch.set_num_threads(threads)

    def _reported(self, progress: Progress | None) -> Progress:
        """Makes a callback that reports one object at a time, and ends a run that is to stop."""

        def report(stage: str, done: int, total: int) -> None:
            if self._stopped.is_set():
                raise _Stopped
            if progress is not None:
                with self._reporting:
                    progress(stage, done, total)

        return report


@contextmanager
def side_by_side(pipeline: Pipeline, workers: int) -> Iterator[SideBySide]:
    """The pipeline and `workers - 1` twins of it (`Pipeline.twins`) for the length of a scene."""
    with ExitStack() as stack:
        twins: list[Any] = stack.enter_context(pipeline.twins(workers - 1)) if workers > 1 else []
        yield SideBySide([pipeline, *twins])
