"""A short memory of computed velocities, one ring buffer for each modality."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from torch import Tensor

from fastsam3d.diffusion.maths.newton import newton_forecast


class History:
    """The last few computed values of every modality, with the step and the time of each.

    Only computed values may be added: a forecast that feeds its own history drifts without a bound.

    Args:
        depth: how many values are kept, at least 1; a forecast of order `k` wants `k + 1`.
    """

    def __init__(self, depth: int) -> None:
        if depth < 1:
            raise ValueError(f"depth must be at least 1, not {depth}")
        self._entries: deque[tuple[int, float, dict[str, Tensor]]] = deque(maxlen=depth)

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, index: int, time: float, values: Mapping[str, Tensor]) -> None:
        """Stores the values computed at step `index`, in fp32: half precision would double slope errors."""
        self._entries.append((index, time, {name: value.detach().float() for name, value in values.items()}))

    def clear(self) -> None:
        """Forgets everything, because earlier values say nothing about later ones after a guidance edge."""
        self._entries.clear()

    def newest(self, name: str) -> Tensor:
        """The value of modality `name` at the last computed step."""
        return self._entries[-1][2][name]

    def forecast(self, name: str, index: int, time: float, order: int, axis: str = "time") -> Tensor:
        """Polynomial forecast of modality `name`.

        Args:
            name: the modality.
            index: the step that is forecast.
            time: its flow time.
            order: 0 hold, 1 linear, 2 quadratic; lowered to what the history holds.
            axis: "time" for slopes per unit of flow time, "index" for slopes per step.
        """
        entries = list(self._entries)[-(order + 1) :]
        by_time = axis == "time"
        positions = [entry[1] if by_time else float(entry[0]) for entry in entries]
        return newton_forecast(
            positions, [entry[2][name] for entry in entries], time if by_time else float(index)
        )
