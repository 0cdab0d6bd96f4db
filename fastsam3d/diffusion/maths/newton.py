"""Polynomial forecast by Newton's divided differences: slopes per unit of position, whatever the spacing."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def newton_forecast(positions: Sequence[float], values: Sequence[Tensor], target: float) -> Tensor:
    """Value at `target` of the polynomial through all samples.

    One sample gives a hold, two a line, three a parabola. Positions are flow times (slopes per unit of time, right on
    any grid) or step indices (the rule of the published method, right on an even grid only).

    Args:
        positions: where the samples lie, all different, in any order.
        values: samples of one shape, as many as positions.
        target: where the polynomial is read; may lie outside the samples.

    Returns:
        Tensor of the samples' shape.

    Raises:
        ValueError: no samples, or lengths that differ.
    """
    if not values or len(positions) != len(values):
        raise ValueError(
            f"as many positions as values are needed: {len(positions)} and {len(values)} were given"
        )
    nodes, column = list(positions), list(values)
    coefficients = [column[0]]
    for level in range(1, len(nodes)):
        column = [(column[i + 1] - column[i]) / (nodes[i + level] - nodes[i]) for i in range(len(column) - 1)]
        coefficients.append(column[0])
    result = coefficients[-1]
    for node, coefficient in zip(reversed(nodes[:-1]), reversed(coefficients[:-1]), strict=True):
        result = coefficient + (target - node) * result
    return result
