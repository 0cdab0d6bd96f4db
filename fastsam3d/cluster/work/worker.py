"""One worker of a batch, in any process: every item gets a row, also if it fails."""

from __future__ import annotations

import logging
import os
import platform
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import Any, Protocol

from fastsam3d.cluster.batch.items import Item
from fastsam3d.cluster.work.fetching import Fetched
from fastsam3d.errors import UserError

logger = logging.getLogger(__name__)

OK, FAILED, POISON, STOP = "ok", "failed", "poison", "stop"
"""Values of `status`. The last one is no result: the pipeline cannot be loaded, and so no item can be computed."""
MOST_DEATHS = 2
"""Workers that an item may kill before it is set aside."""

Row = dict[str, Any]


class Runner(Protocol):
    """Computes items."""

    def load(self) -> None:
        """Loads what it needs, if that was not done yet."""

    def finished(self, item: Item) -> Row | None:
        """Reads the facts of a result that exists already; None if there is none."""

    def run(self, fetched: Fetched) -> Row:
        """Computes an item; returns its facts. The fact `error` means that a part of it failed."""


class Work(Protocol):
    """The work of the workers; it can be pickled."""

    @property
    def settings(self) -> str:
        """Returns a hash of what all results depend on."""

    def opened(self) -> AbstractContextManager[Runner]:
        """Makes a runner, for the life of a worker."""


class Attempts(Protocol):
    """Records which items have killed their worker. It exists as long as the batch, longer than single workers."""

    def begin(self, name: str, ended: Row | None = None) -> tuple[int, Row | None]:
        """Counts an attempt; returns the number of attempts before it, and the row if one of them finished.

        Args:
            ended: the row of the worker's item before, which is kept first; see `end`.
        """

    def end(self, row: Row) -> None:
        """Keeps the row of an attempt, in case the worker dies at a later item of its task."""


class NoAttempts:
    """For a batch in one process, where an item that kills the worker kills the batch."""

    def begin(self, name: str, ended: Row | None = None) -> tuple[int, Row | None]:
        """See `Attempts`."""
        return 0, None

    def end(self, row: Row) -> None:
        """See `Attempts`."""


class Worker:
    """Runs items one after another.

    Args:
        work: opened here.
        attempts: shared by all workers of the batch.
    """

    def __init__(self, work: Work, attempts: Attempts | None = None) -> None:
        self.name = f"{platform.node()}:{os.getpid()}"
        self._work, self._attempts = work, attempts or NoAttempts()
        self._stack = ExitStack()
        self._runner: Runner | None = None

    def close(self) -> None:
        """Closes the work."""
        self._stack.close()
        self._runner = None

    def rows(self, fetched: list[Fetched]) -> Iterator[Row]:
        """Yields a row for every item, in their order.

        The call that counts an item's attempt also keeps the row of the item before: one call an item. `row` is the
        plain form, with two.
        """
        ended: Row | None = None
        for each in fetched:
            row = self._row(each, ended)
            ended = row if _computed(row) else None
            yield row
        if ended is not None:
            self._attempts.end(ended)

    def row(self, fetched: Fetched) -> Row:
        """Computes the row of an item.

        An exception of the job is the row's error. If the pipeline cannot be loaded, the status is `stop`.
        """
        row = self._row(fetched, None)
        if _computed(row):
            self._attempts.end(row)
        return row

    def _row(self, fetched: Fetched, ended: Row | None) -> Row:
        item = fetched.item
        start = time.perf_counter()
        row: Row = {"name": item.name, "status": OK, "error": None, "made_of": item.made_of(self._work.settings)}
        before, known = self._attempts.begin(item.name, ended)
        if known is not None:
            return known
        try:
            runner = self._opened()
            facts = runner.finished(item)
            row["reused"] = facts is not None
            if facts is None and before >= MOST_DEATHS:
                text = f"{before} workers died while they computed it; it was set aside"
                return row | {"status": POISON, "error": text, "worker": self.name}
            if facts is None:
                facts = self._run(runner, fetched)
        except _NotLoaded as error:
            return row | {"status": STOP, "error": str(error)}
        except UserError as error:
            facts = {"error": str(error)}
        except Exception as error:  # a defect, of this item: the others go on
            logger.exception("%s failed", item.name)
            facts = {"error": f"{type(error).__name__}: {error}"}
        row |= facts
        row["status"] = OK if row["error"] is None else FAILED
        return row | {"worker": self.name, "wall_seconds": time.perf_counter() - start}

    def _opened(self) -> Runner:
        if self._runner is None:
            self._runner = self._stack.enter_context(self._work.opened())
        return self._runner

    def _run(self, runner: Runner, fetched: Fetched) -> Row:
        try:
            runner.load()
        except Exception as error:
            text = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            raise _NotLoaded(text) from error
        return runner.run(fetched)


def _computed(row: Row) -> bool:
    return row["status"] in (OK, FAILED)


class _NotLoaded(Exception):
    pass
