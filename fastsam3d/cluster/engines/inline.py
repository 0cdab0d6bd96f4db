"""The plain engine: all items in this process, one after another, without Ray."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

from fastsam3d.cluster.batch.items import Item
from fastsam3d.cluster.work.fetching import Fetched, fetch
from fastsam3d.cluster.work.worker import Row, Work, Worker


def run_inline(items: Iterable[Item], work: Work) -> Generator[Row, None, None]:
    """Yields the row of every item, in their order. While one is computed, the files of the next one are fetched."""
    worker = Worker(work)
    ahead = ThreadPoolExecutor(1, thread_name_prefix="fetch")
    try:
        waiting: Future[Fetched] | None = None
        for item in items:
            current, waiting = waiting, ahead.submit(fetch, item)
            if current is not None:
                yield worker.row(current.result())
        if waiting is not None:
            yield worker.row(waiting.result())
    finally:
        ahead.shutdown(wait=False, cancel_futures=True)
        worker.close()
