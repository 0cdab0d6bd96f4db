"""Takes back the error of forecast steps as soon as the next computed one shows it.

Between two computed steps a forecast extrapolates; once the later one is known, the same stretch can be interpolated,
which is far more accurate. The difference, integrated over the skipped steps, is what the state is off by. It is
added to the next step, as the corrector of a multistep method would (predict, evaluate, correct; no evaluation more).
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from fastsam3d.diffusion.maths.history import History


class Corrector:
    """Keeps computed values and the forecasts since the last of them, and finds the error of these forecasts.

    Args:
        degree: of the interpolating polynomial, 1 or 2.
    """

    def __init__(self, degree: int) -> None:
        self.degree = degree
        self._history = History(degree + 1)
        self._skipped: list[tuple[int, float, float, dict[str, Tensor]]] = []

    def skipped(self, index: int, time: float, duration: float, forecast: Mapping[str, Tensor]) -> None:
        """Notes that step `index` at `time` was integrated for `duration` with a forecast."""
        self._skipped.append((index, time, duration, dict(forecast)))

    def computed(self, index: int, time: float, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Notes a computed step and starts anew.

        Returns:
            By modality, the integral of forecast minus interpolation since the computed step before; empty where
            nothing was skipped.
        """
        self._history.add(index, time, values)
        skipped, self._skipped = self._skipped, []
        if len(self._history) < 2:
            return {}
        error: dict[str, Tensor] = {}
        for step, at, duration, forecast in skipped:
            for name, value in forecast.items():
                part = duration * (value - self._history.forecast(name, step, at, self.degree))
                error[name] = error[name] + part if name in error else part
        return error

    def clear(self) -> None:
        """Forgets values and forecasts."""
        self._history.clear()
        self._skipped.clear()
