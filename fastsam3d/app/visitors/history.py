"""Keeps the results of one visitor's session, newest last, so that they can be shown again."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass

from fastsam3d.app.runs.comparison import Comparison, ComparisonRequest
from fastsam3d.app.runs.results import ResultFiles
from fastsam3d.errors import UserError


@dataclass(frozen=True)
class Finished:
    """A comparison with its request and files.

    Attributes:
        selected: the seed that is shown.
        number: number of the run in the session, from 1. It does not change when `off` is added to the run.
    """

    request: ComparisonRequest
    comparison: Comparison
    files: ResultFiles
    selected: int
    number: int


class History:
    """The results of a session by number. If there are more than the limit, the oldest are removed with their files.

    Args:
        limit: largest number of results.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: list[Finished] = []
        self._runs = 0

    @property
    def items(self) -> Sequence[Finished]:
        """Returns the results, newest last."""
        return tuple(self._kept)

    def next_number(self) -> int:
        """Counts a new run; returns its number."""
        self._runs += 1
        return self._runs

    def find(self, number: object) -> Finished:
        """Returns the result of a run.

        Raises:
            UserError: there is no such result, or it was removed because there are newer ones.
        """
        for item in self._kept:
            if item.number == number:
                return item
        raise UserError("The result of that run is gone; only the last ones are kept.")

    def put(self, finished: Finished) -> None:
        """Adds a result, or replaces the result of the same number. Files that are not used any more are removed."""
        for index, item in enumerate(self._kept):
            if item.number == finished.number:
                self._kept[index] = finished
                if item.files.folder != finished.files.folder:
                    _remove(item)
                return
        self._kept.append(finished)
        while len(self._kept) > self._limit:
            _remove(self._kept.pop(0))

    def close(self) -> None:
        """Removes all results and their files."""
        while self._kept:
            _remove(self._kept.pop())


def _remove(item: Finished) -> None:
    shutil.rmtree(item.files.folder, ignore_errors=True)
