"""Search for the cheapest setting within a quality budget: coordinate descent over axes of discrete levels.

Pure bookkeeping: what a point of the search costs and how good it is comes from a callable. Candidates race: one that
is seen to be dearer or worse than the best so far is given up before all its objects are run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastsam3d.errors import UserError

Settings = dict[str, Any]
Point = tuple[int, ...]

SAME_COST = 0.005
"""Relative difference of costs that counts as none; then the better quality wins."""
WORTH_KEEPING = 0.001
"""Gain of quality at equal cost that counts."""


@dataclass(frozen=True)
class Axis:
    """One choice: a name, and levels, each a set of changed settings, from the most careful to the boldest."""

    name: str
    levels: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class Score:
    """Cost and quality of a setting.

    Attributes:
        cost: any unit, smaller is better.
        slack: how far inside the budget it lies, in shares of the budget; negative is outside.
        quality: larger is better; decides between equal costs, because a later axis can spend it.
        complete: false where the candidate was given up before all objects were run.
        details: figures for people and for the preset's header.
    """

    cost: float
    slack: float
    quality: float
    complete: bool = True
    details: Mapping[str, float] | None = None

    @property
    def feasible(self) -> bool:
        """Tells whether the setting was measured whole and lies within the budget."""
        return self.complete and self.slack >= 0

    def beats(self, other: Score | None) -> bool:
        """Cheaper within the budget; at equal cost, of better quality."""
        if not self.feasible or other is None:
            return self.feasible
        if self.cost < other.cost * (1 - SAME_COST):
            return True
        return self.cost <= other.cost * (1 + SAME_COST) and self.quality > other.quality + WORTH_KEEPING


Evaluate = Callable[[Settings, "Score | None"], Score]
"""Scores settings; given the best score so far it may give up early."""


class Search:
    """State of one search.

    Args:
        axes: the space.
        evaluate: scores settings; raises UserError for settings that are not possible together.
        limit: number of different candidates that may be scored.
        tell: called after each candidate with (settings, score, whether it is the best so far).
    """

    def __init__(
        self,
        axes: Sequence[Axis],
        evaluate: Evaluate,
        limit: int,
        tell: Callable[[Settings, Score, bool], None] = lambda settings, score, best: None,
    ) -> None:
        self.axes, self.limit, self._evaluate, self._tell = list(axes), limit, evaluate, tell
        self.best: Point | None = None
        self.score: Score | None = None
        self.tried: dict[str, Score | None] = {}

    def run(self, starts: Sequence[Point]) -> Point:
        """The best point found: the best of the starts, then single changes until none helps.

        Raises:
            UserError: no start lies within the budget.
        """
        for point in starts:
            self.consider(point)
        if self.best is None:
            raise UserError(
                "tune: not even the most careful setting lies within the budget: allow a larger drop, or take more "
                "objects"
            )
        improved = True
        while improved and not self.exhausted:
            improved = False
            for index in range(len(self.axes)):
                for point in self._changes(self.best, index):
                    if self.exhausted:
                        break
                    if self.consider(point):
                        improved = True
                        break  # the neighbours of the new best come in the next round
        return self.best

    @property
    def exhausted(self) -> bool:
        """Tells whether the limit of candidates is reached."""
        return len([score for score in self.tried.values() if score is not None]) >= self.limit

    def consider(self, point: Point) -> bool:
        """Scores a point unless its settings were scored before; returns true where it is the new best."""
        settings = self.settings(point)
        key = repr(sorted(settings.items()))
        if key in self.tried or self.exhausted:
            return False
        try:
            score = self._evaluate(settings, self.score)
        except UserError:
            self.tried[key] = None  # not possible together
            return False
        self.tried[key] = score
        best = score.beats(self.score)
        if best:
            self.best, self.score = point, score
        self._tell(settings, score, best)
        return best

    def settings(self, point: Point) -> Settings:
        """Changed settings of a point, without those of techniques that are switched off."""
        merged: Settings = {}
        for axis, level in zip(self.axes, point, strict=True):
            merged.update(axis.levels[level])
        off = {key.partition(".")[0] for key, value in merged.items() if key.endswith(".enabled") and not value}
        return {key: value for key, value in merged.items() if key.partition(".")[0] not in off}

    def _changes(self, point: Point, index: int) -> Iterator[Point]:
        """The other levels of one axis: bolder ones first, nearest first, then the more careful ones."""
        own, count = point[index], len(self.axes[index].levels)
        for level in [*range(own + 1, min(own + 3, count)), *range(own - 1, max(own - 2, -1), -1)]:
            yield (*point[:index], level, *point[index + 1 :])
