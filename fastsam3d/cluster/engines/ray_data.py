"""The engine on Ray Data: a pool of workers, each with a pipeline of its own, and files fetched beside them.

A worker that dies is replaced, and another worker gets its task. A separate actor records which items a worker has
started. So an item that kills its worker twice is skipped, and rows that were finished before it are not lost.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from fastsam3d.basics.optional import optional_module
from fastsam3d.cluster.batch.items import Item
from fastsam3d.cluster.batch.options import BatchOptions
from fastsam3d.cluster.engines.connection import connected, free_output, quiet_environment, quiet_logs
from fastsam3d.cluster.work.fetching import Fetched, fetch, needs_fetching
from fastsam3d.cluster.work.worker import Row, Work, Worker

MOST_TASKS = 2000
"""Largest number of tasks of a batch, because the driver keeps facts about each."""
FETCH_CORES = 0.25
"""Share of a core for a task that fetches files: most of the time it waits for the network."""


def require_ray() -> None:
    """Imports Ray.

    Raises:
        UserError: it is not installed.
    """
    quiet_environment()
    for module in ("ray", "ray.data"):
        optional_module(module, "engine=ray", "ray")


def run_on_ray(items: Sequence[Item], work: Work, options: BatchOptions) -> Generator[Row, None, None]:
    """Yields the row of every item as it is done, in any order.

    Raises:
        UserError: Ray cannot be started or reached.
    """
    require_ray()
    import ray
    import ray.data

    gpus = options.gpus_per_worker if _on_cuda(work) else 0
    least, most = options.least_and_most
    with connected(options.address, most, gpus > 0, options.store_mib), quiet_logs(), _own_settings():
        tasks = [{"items": pickle.dumps(part)} for part in _parts(items, options.items_per_task, most)]
        with free_output():
            attempts: Any = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(AttemptsActor).remote()
            data: Any = ray.data.from_items(tasks, override_num_blocks=len(tasks))
            if any(map(needs_fetching, items)):
                data = data.map(fetch_task, num_cpus=FETCH_CORES)
            data = data.map_batches(
                PoolWorker,
                fn_constructor_args=(work, attempts),
                batch_size=1,
                num_cpus=1,
                num_gpus=gpus or None,
                # A worker that gets no task would only load its pipeline.
                compute=ray.data.ActorPoolStrategy(min_size=min(least, len(tasks)), max_size=min(most, len(tasks))),
            )
        try:
            batches = iter(data.iter_batches(batch_size=None, prefetch_batches=0, batch_format="numpy"))
            while (batch := _next(batches)) is not None:
                for text in batch["rows"]:
                    rows = json.loads(text)
                    yield from rows
                    ray.get(attempts.forget.remote([row["name"] for row in rows]))
        finally:
            ray.kill(attempts)


@contextmanager
def _own_settings() -> Iterator[None]:
    """Sets what a batch needs of Ray Data. Afterwards the settings are those of the program that is connected."""
    import ray.data

    context: Any = ray.data.DataContext.get_current()
    values = {
        "enable_progress_bars": False,
        "print_on_execution_start": False,
        "execution_no_progress_timeout_s": -1,  # an object may take long
    }
    before = {name: getattr(context, name) for name in values if hasattr(context, name)}
    for name, value in values.items():
        setattr(context, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(context, name, value)


def _next(batches: Iterator[dict[str, Any]]) -> dict[str, Any] | None:
    # While it waits here, and not around a `yield`: there the caller's own code prints.
    with free_output():
        return next(batches, None)


class AttemptsActor:
    """Records which items were started and which were finished; see `fastsam3d.cluster.work.worker.Attempts`."""

    def __init__(self) -> None:
        self._begun: dict[str, int] = {}
        self._rows: dict[str, Row] = {}

    def begin(self, name: str, ended: Row | None = None) -> tuple[int, Row | None]:
        """Keeps the row of the item before, and counts an attempt."""
        if ended is not None:
            self.end(ended)
        before = self._begun.get(name, 0)
        self._begun[name] = before + 1
        return before, self._rows.get(name)

    def end(self, row: Row) -> None:
        """Keeps a row until the driver has it."""
        self._rows[row["name"]] = row

    def forget(self, names: Iterable[str]) -> None:
        """Forgets items whose rows the driver has."""
        for name in names:
            self._begun.pop(name, None)
            self._rows.pop(name, None)


class RemoteAttempts:
    """Gives a worker access to the actor.

    Args:
        actor: a handle of `AttemptsActor`.
    """

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def begin(self, name: str, ended: Row | None = None) -> tuple[int, Row | None]:
        """See `AttemptsActor`."""
        import ray

        before, row = ray.get(self._actor.begin.remote(name, ended))
        return before, row

    def end(self, row: Row) -> None:
        """See `AttemptsActor`."""
        self._actor.end.remote(row)


class PoolWorker:
    """A worker of the pool.

    Args:
        work: is opened once, in this worker.
        actor: a handle of `AttemptsActor`.
    """

    def __init__(self, work: Work, actor: Any) -> None:
        self._worker = Worker(work, RemoteAttempts(actor))

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Rows of a task, as JSON."""
        key = "fetched" if "fetched" in batch else "items"
        found = pickle.loads(bytes(batch[key][0]))
        fetched = [each if isinstance(each, Fetched) else Fetched(each) for each in found]
        return {"rows": [json.dumps(list(self._worker.rows(fetched)))]}


def fetch_task(row: dict[str, Any]) -> dict[str, Any]:
    """Fetches the files of the items of a task."""
    return {"fetched": pickle.dumps([fetch(item) for item in pickle.loads(row["items"])])}


def _parts(items: Sequence[Item], size: int | None, workers: int) -> list[list[Item]]:
    """Divides items into tasks: one item a task, so that none waits for another, unless there are very many."""
    size = size or max(1, -(-len(items) // MOST_TASKS))
    size = max(1, min(size, -(-len(items) // workers)))
    return [list(items[first : first + size]) for first in range(0, len(items), size)]


def _on_cuda(work: Work) -> bool:
    request = getattr(work, "request", None)
    return request is not None and str(request.device_name()).startswith("cuda")
