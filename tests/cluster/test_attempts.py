"""Counting attempts, without Ray: one call an item gives what two calls an item give, wherever a worker dies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from batch_stand_in import StandIn, stand_in_items

from fastsam3d.cluster.batch.items import Item
from fastsam3d.cluster.engines.ray_data import AttemptsActor
from fastsam3d.cluster.work.fetching import Fetched
from fastsam3d.cluster.work.worker import Row, Worker

COUNT = 5
COMPUTED: Counter[str] = Counter()


class Died(BaseException):
    """The death of a worker. Not an `Exception`, so that no code of the worker goes on after it."""


class Mortal(StandIn):
    """Counts computations of each item; an item that does `kill`, or `kill once`, ends the worker."""

    def finished(self, item: Item) -> dict[str, Any] | None:
        return None  # so that only the rows that were kept save an item from being computed again

    def run(self, fetched: Fetched) -> dict[str, Any]:
        item = fetched.item
        COMPUTED[item.name] += 1
        does = item.columns["does"]
        if does == "kill" or (does == "kill once" and COMPUTED[item.name] == 1):
            raise Died
        return self._facts(0) | {"error": "the mask is empty." if does == "fail" else None}


def together(worker: Worker, task: list[Fetched]) -> Iterable[Row]:
    return worker.rows(task)


def one_by_one(worker: Worker, task: list[Fetched]) -> Iterable[Row]:
    return map(worker.row, task)


def task_of(items: list[Item], how: Callable[[Worker, list[Fetched]], Iterable[Row]]) -> list[Row]:
    """The rows of a task; a worker that dies is replaced, as Ray does it."""
    attempts = AttemptsActor()
    COMPUTED.clear()
    for _ in range(10):
        try:
            rows = list(how(Worker(Mortal("out", files=False), attempts), list(map(Fetched, items))))
        except Died:
            continue
        return [{key: value for key, value in row.items() if key not in ("worker", "wall_seconds")} for row in rows]
    raise AssertionError("the task never ended")


@pytest.mark.parametrize("does", ["work", "fail", "kill", "kill once"])
@pytest.mark.parametrize("place", range(COUNT))
def test_one_call_an_item_gives_what_two_calls_give(does, place):
    items = stand_in_items(COUNT, **{f"item_{place}": does, f"item_{(place + 2) % COUNT}": "fail"})
    rows = task_of(items, together)
    computed = Counter(COMPUTED)
    assert rows == task_of(items, one_by_one)
    assert computed == COMPUTED
    # By hand: an item that kills is begun twice and then set aside; the others are computed once.
    own = f"item_{place:05d}"
    status = {"work": "ok", "fail": "failed", "kill": "poison", "kill once": "ok"}[does]
    assert {row["name"]: row["status"] for row in rows}[own] == status
    expected = dict.fromkeys((item.name for item in items), 1) | {own: 2 if "kill" in does else 1}
    assert computed == expected


def test_the_driver_says_which_items_are_forgotten():
    attempts = AttemptsActor()
    attempts.begin("a")
    attempts.begin("b", {"name": "a", "status": "ok"})
    assert attempts.begin("a") == (1, {"name": "a", "status": "ok"})
    attempts.forget(["a"])
    assert attempts.begin("a") == (0, None)
    assert attempts.begin("b") == (1, None)
