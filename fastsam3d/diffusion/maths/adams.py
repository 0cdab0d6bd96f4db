"""Adams methods of variable step: the integral of a quantity that is known at a few earlier times.

Adams-Bashforth integrates the polynomial through the last values beyond the newest of them. As soon as the next value
is known, Adams-Moulton integrates the same stretch between values, which is far more accurate; the difference is what
the state is off by (Hairer, Norsett and Wanner, Solving Ordinary Differential Equations I, section III.5; as the
corrector of UniPC, arXiv 2302.04867, it costs no evaluation, because the value is computed for the next step anyway).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

Values = dict[str, Tensor]


def integral_weights(nodes: Sequence[float], start: float, end: float) -> tuple[float, ...]:
    """Weights that make the integral of a polynomial out of its values.

    `sum(w * f(t) for w, t in zip(weights, nodes))` is the integral from `start` to `end` of the polynomial of least
    degree through the values at the nodes. It is exact for polynomials of a degree below the number of nodes.

    Args:
        nodes: times of the values, all different, in any order and at any distance.
        start: where the integral begins; may lie outside the nodes.
        end: where it ends.

    Raises:
        ValueError: no nodes, or two that are equal.
    """
    if not nodes or len(set(nodes)) != len(nodes):
        raise ValueError(f"different nodes are needed: {list(nodes)} were given")
    length = end - start
    if length == 0.0:
        return (0.0,) * len(nodes)
    # In units of the stretch, from its beginning: powers of times near one another would lose digits.
    places = [(node - start) / length for node in nodes]
    weights = []
    for i, own in enumerate(places):
        basis = [1.0]  # coefficients of the Lagrange polynomial of this node, the constant first
        for j, other in enumerate(places):
            if j != i:
                scale = own - other
                raised, same = [0.0, *basis], [*basis, 0.0]
                basis = [(up - other * low) / scale for up, low in zip(raised, same, strict=True)]
        weights.append(length * sum(c / (power + 1) for power, c in enumerate(basis)))
    return tuple(weights)


def limited(change: Tensor, reference: Tensor, factor: float) -> Tensor:
    """A change that is at most `factor` times as long (L2) as a reference.

    A longer one is shortened, one that is not finite becomes zero. Decided on the tensors' device: on a GPU an answer
    to the host would make it wait.
    """
    length, bound = change.norm(), factor * reference.norm()
    fine = torch.isfinite(length)
    scale = torch.where(fine, (bound / length.clamp_min(1e-30)).clamp_max(1.0), torch.zeros_like(length))
    return torch.where(fine, change, torch.zeros_like(change)) * scale


class AdamsIntegral:
    """The integral of one quantity along a run, predicted by Adams-Bashforth and corrected by Adams-Moulton.

    Args:
        order: values that a prediction uses at most: 1 holds the last one, 2 follows a line, 3 a parabola.
        corrector_order: values that a correction uses at most, the new one among them: 2 is the trapezoidal rule;
            0 corrects nothing.
        growth: longest slope term of a prediction, in lengths of the held value, and longest correction, in lengths
            of what it corrects. It keeps steps that are too long for the quantity from blowing up.
    """

    def __init__(self, order: int, corrector_order: int = 0, growth: float = 1.0) -> None:
        self.order, self.corrector_order, self.growth = order, corrector_order, growth
        self._values: deque[tuple[float, Values]] = deque(maxlen=max(order, corrector_order, 1))
        self._stretch: tuple[float, float] | None = None  # integrated since the newest value
        self._predicted: Values = {}

    def __len__(self) -> int:
        return len(self._values)

    def bend(self) -> float:
        """Computes how fast the quantity changes: the length of its slope, in lengths of its newest value.

        Of several parts, the fastest counts. The unit is 1 / time.
        Half of it times the square of a step is what the predictions of orders 1 and 2 differ by. This estimates the
        error of order 1 (an embedded pair: Hairer, Norsett and Wanner, section II.4). With fewer than two values it is
        infinite. On a GPU the host waits for the answer.
        """
        if len(self._values) < 2:
            return float("inf")
        (before, earlier), (now, newest) = list(self._values)[-2:]
        slopes = [(newest[name] - earlier[name]).norm() / newest[name].norm().clamp_min(1e-30) for name in newest]
        return float(torch.stack(slopes).max()) / (now - before)

    def clear(self) -> None:
        """Forgets everything, because earlier values say nothing about later ones behind a jump."""
        self._values.clear()
        self._stretch, self._predicted = None, {}

    def add(self, time: float, values: Mapping[str, Tensor]) -> Values:
        """Takes the values at a time, in fp32.

        Returns:
            What has to be added to the state because the stretch since the value before was predicted; empty where
            nothing was, or nothing is corrected.
        """
        self._values.append((time, {name: value.detach().float() for name, value in values.items()}))
        stretch, predicted = self._stretch, self._predicted
        self._stretch, self._predicted = None, {}
        if stretch is None or self.corrector_order < 2 or len(self._values) < 2:
            return {}
        exact = self._integral(self.corrector_order, *stretch)
        return {
            name: limited(exact[name] - value, value, self.growth) for name, value in predicted.items() if name in exact
        }

    def advance(self, start: float, end: float, order: int | None = None) -> Values:
        """Predicts the integral from `start`, where the stretch before ended, to `end`; empty without any value.

        Args:
            order: of this prediction, the integral's own where None.
        """
        if not self._values:
            return {}
        held = {name: (end - start) * value for name, value in self._values[-1][1].items()}
        chosen = self.order if order is None else order
        if chosen > 1 and len(self._values) > 1:
            full = self._integral(chosen, start, end)
            held = {n: value + limited(full[n] - value, value, self.growth) for n, value in held.items()}
        if self._stretch is not None:
            start = self._stretch[0]
            self._predicted = {name: value + held[name] for name, value in self._predicted.items()}
        else:
            self._predicted = held
        self._stretch = (start, end)
        return held

    def _integral(self, order: int, start: float, end: float) -> Values:
        """Integral of the polynomial through the newest values."""
        entries = list(self._values)[-order:]
        weights = integral_weights([time for time, _ in entries], start, end)
        newest = entries[-1][1]
        total = {name: torch.zeros_like(value) for name, value in newest.items()}
        for weight, (_, values) in zip(weights, entries, strict=True):
            total = {name: value.add(values[name], alpha=weight) for name, value in total.items()}
        return total
