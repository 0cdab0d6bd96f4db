"""Forecast by a Taylor series on backward differences (TaylorSeer, arXiv 2503.06923)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor


def taylor_forecast(differences: Sequence[Tensor], horizon: float) -> Tensor:
    """`sum_i D_i m^i / i!`.

    Args:
        differences: `[D_0, D_1, ...]`: the newest value and its backward differences per step, one shape.
        horizon: `m`, steps since the newest value; positive looks ahead.

    Returns:
        Tensor of the values' shape.
    """
    result = differences[0]
    for i, difference in enumerate(differences[1:], start=1):
        result = result + difference * (horizon**i / math.factorial(i))
    return result
