"""Forecast on scaled Hermite polynomials (HiCache, arXiv 2508.16984)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor


def hermite_terms(horizon: float, order: int, sigma: float = 0.5) -> list[float]:
    """`h_i(m) = sigma^i H_i(sigma m)` for i = 1..order, with the physicists' Hermite polynomials.

    Args:
        horizon: `m`, steps since the last computed one; positive looks ahead.
        order: highest term.
        sigma: contraction; at order 1, 0.5 gives half the slope of a Taylor series.
    """
    z = sigma * horizon
    polynomials = [1.0, 2.0 * z]
    for a in range(1, order):
        polynomials.append(2.0 * z * polynomials[a] - 2.0 * a * polynomials[a - 1])
    return [sigma**i * polynomials[i] for i in range(1, order + 1)]


def hermite_forecast(differences: Sequence[Tensor], horizon: float, sigma: float = 0.5) -> Tensor:
    """`F + sum_i D_i h_i(m) / i!`.

    Args:
        differences: `[F, D_1, D_2, ...]`: the newest value and its backward differences per step, one shape.
        horizon: steps since the newest value.
        sigma: see `hermite_terms`.

    Returns:
        Tensor of the values' shape.
    """
    result = differences[0]
    for i, term in enumerate(hermite_terms(horizon, len(differences) - 1, sigma), start=1):
        result = result + differences[i] * (term / math.factorial(i))
    return result
