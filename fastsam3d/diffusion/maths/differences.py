"""Backward differences per step of computed values: the raw material of Taylor and Hermite forecasts."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


class BackwardDifferences:
    """The newest computed value of every modality and its differences, updated as each value arrives.

    `D_0` is the value; `D_(i+1) = (D_i - previous D_i) / gap` with the gap, in steps, of the last two computed
    steps. On even gaps these are the classical differences; where a gap differs from the one before (after a warm-up
    1, then the interval) orders from 2 on mix spacings, as in the published methods that use this rule.

    Args:
        order: highest difference kept, at least 0.
    """

    def __init__(self, order: int) -> None:
        self.order = order
        self.index = -1
        self._terms: list[dict[str, Tensor]] = []

    def __len__(self) -> int:
        return len(self._terms)

    def add(self, index: int, values: Mapping[str, Tensor]) -> None:
        """Takes the values computed at step `index`; they are kept in fp32."""
        terms = [{name: value.detach().float() for name, value in values.items()}]
        gap = index - self.index
        for newer_order, old in enumerate(self._terms[: self.order]):
            new = terms[newer_order]
            terms.append({name: (value - old[name]) / gap for name, value in new.items()})
        self._terms, self.index = terms, index

    def terms(self, name: str) -> list[Tensor]:
        """`[D_0, D_1, ...]` of a modality, as many as are known."""
        return [term[name] for term in self._terms]

    def clear(self) -> None:
        """Forgets everything."""
        self._terms, self.index = [], -1
