"""Finds the number of an adaptive budget that leaves out a given percentage of the objects on average.

It needs only stored scores, and runs no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fastsam3d.basics.suggestions import suggestion
from fastsam3d.errors import UserError
from fastsam3d.mllm.budgets import ADAPTIVE, LOGITS, MASS, Budget
from fastsam3d.mllm.predictor.question_sets import set_of
from fastsam3d.mllm.predictor.stored_maps import StoredMaps

_HALVINGS = 40


@dataclass(frozen=True)
class FoundBudget:
    """Result of `search_budget`.

    Attributes:
        rule: "mass" (SAP of Fast3D) or "threshold".
        value: `alpha`, 0..1, for "mass"; `times`, 0 or more, for "threshold".
        percent: percentage of the objects that this value leaves out, averaged as `search_budget` says. It can differ
            from the target, because the number of objects that stay is whole.
        fewest, most: smallest and largest number of objects that stay in a sample.
    """

    rule: str
    value: float
    percent: float
    fewest: int
    most: int

    @property
    def number(self) -> str:
        """Name of the setting that takes the value: "alpha" or "times"."""
        return ADAPTIVE[self.rule]


def search_budget(
    logits_by_sample: Sequence[Tensor],
    present: Sequence[Tensor] | None,
    target: float,
    scale: str = LOGITS,
    sets: Sequence[str] | None = None,
    rule: str = "mass",
) -> FoundBudget:
    """Searches the number of an adaptive budget that leaves out the target percentage of objects on average.

    The search halves an interval. The mean is taken over the samples.

    Args:
        logits_by_sample: (objects,) scores of each sample.
        present: (objects,) bool of each sample, False for padding objects, which do not count. None: all count.
        target: percentage of the objects to leave out, 0..100.
        scale: of the scores, `LOGITS` or `MASS` of `fastsam3d.mllm.budgets`.
        sets: name of the data set of each sample. The mean is then taken within each set, and over the sets, as in
            Fast3D (ACM MM 2025). None: no sets.
        rule: rule of the budget, "mass" or "threshold".

    Raises:
        UserError: there is no such rule or scale; there are no samples; the lengths of the arguments do not fit; a
            score is not possible on its scale; or not that many objects can be left out.
    """
    if rule not in ADAPTIVE:
        raise UserError(f"there is no adaptive rule {rule!r}. {suggestion(str(rule), ADAPTIVE)}")
    if scale not in (LOGITS, MASS):
        raise UserError(f"scores of the scale {scale!r} give no shares of mass: give {LOGITS} or {MASS}")
    scores, there = _stacked(logits_by_sample, present)
    if not bool(scores[there].isfinite().all()) or (scale == MASS and bool((scores[there] < 0).any())):
        raise UserError(f"some scores are not finite, or are negative on the scale {MASS}: make the scores again")
    weights = _weights(sets, len(scores))
    objects = there.sum(1)

    def counts(value: float) -> Tensor:
        return Budget(rule, alpha=value, times=value).counts(scores, there, scale)

    def percent(value: float) -> float:
        return float((weights * (100.0 - 100.0 * counts(value).double() / objects)).sum())

    # The first of each pair leaves out most objects. No object holds more than the number of objects times the even
    # share of the mass.
    low, high = {"mass": (0.0, 1.0), "threshold": (float(scores.shape[1] + 1), 0.0)}[rule]
    most = percent(low)
    if not 0.0 <= target <= most + 1e-9:
        raise UserError(
            f"{target:g} % of the objects cannot be left out, because one object always stays: give 0 to {most:.1f} %"
        )
    if percent(high) >= target:
        low = high
    for _ in range(_HALVINGS if low != high else 0):  # `low` leaves out at least the target
        middle = (low + high) / 2
        low, high = (middle, high) if percent(middle) >= target else (low, middle)
    value = min((low, high), key=lambda value: abs(percent(value) - target))
    kept = counts(value)
    return FoundBudget(rule, value, percent(value), int(kept.min()), int(kept.max()))


def search_stored_budget(maps: StoredMaps, target: float, rule: str = "mass") -> FoundBudget:
    """Searches on stored maps. If they name their data sets, the mean is taken over the means of the sets.

    Args:
        maps: of one or several data sets.
        target, rule: as for `search_budget`.

    Raises:
        UserError: as for `search_budget`.
    """
    numbers = sorted(maps.maps)
    sets = [set_of(maps.sets, number) for number in numbers]
    return search_budget(maps.objects(numbers), [maps.there(n) for n in numbers], target, maps.kind, sets, rule)


def _stacked(scores: Sequence[Tensor], present: Sequence[Tensor] | None) -> tuple[Tensor, Tensor]:
    """Scores and presence, (S, N) each, filled up to the sample that has most objects."""
    if present is None:
        present = [torch.ones(len(of_sample), dtype=torch.bool) for of_sample in scores]
    if not scores or len(present) != len(scores):
        raise UserError(f"{len(scores)} samples have scores and {len(present)} have values of present: give both")
    for index, (values, there) in enumerate(zip(scores, present, strict=True)):
        if values.shape != there.shape or values.dim() != 1 or not bool(there.any()):
            raise UserError(
                f"sample {index} has {values.numel()} scores, and present has {there.numel()} values of which "
                f"{int(there.sum())} are true: give one of each for every object, and at least one object"
            )
    padded = [
        torch.nn.utils.rnn.pad_sequence([part.cpu() for part in parts], batch_first=True) for parts in (scores, present)
    ]
    return padded[0].double(), padded[1].bool()


def _weights(sets: Sequence[str] | None, samples: int) -> Tensor:
    """Weight of each sample in the mean, (S,) float64."""
    if sets is None:
        return torch.full((samples,), 1.0 / samples, dtype=torch.float64)
    if len(sets) != samples:
        raise UserError(f"{len(sets)} names of data sets were given for {samples} samples: give one for each")
    names = set(sets)
    sizes = {name: sum(other == name for other in sets) for name in names}
    return torch.tensor([1.0 / (sizes[name] * len(names)) for name in sets], dtype=torch.float64)
