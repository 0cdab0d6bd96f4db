"""Dynamic mode decomposition (Prony's method): computed velocities are continued as sums of damped oscillations.

Needs four equally spaced computed steps; until then a Hermite forecast stands in. Window, tolerance and fallback are
those of the port to SAM 3D Objects (docs/facts.md, section M5.2), which decomposes all modalities as one
vector; here each has modes of its own, because four layout tokens would drown in thousands of shape values. It pays
from intervals of 4 on, hence the default.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from torch import Tensor

from fastsam3d.acceleration.registry import Technique
from fastsam3d.diffusion.maths import MINIMUM_SNAPSHOTS, DynamicModes
from fastsam3d.diffusion.registry import register
from fastsam3d.diffusion.techniques.rivals.hicache import HermitePredictor
from fastsam3d.diffusion.techniques.rivals.interval_caching import IntervalCaching, IntervalConfig
from fastsam3d.diffusion.vocabulary import STAGES, Trajectory, Velocity, setting


@dataclass(frozen=True)
class DmdConfig(IntervalConfig):
    """Settings of dynamic mode decomposition."""

    interval: int = setting(
        4, "Steps from one computed step to the next, first stage. Raising: faster, rougher.", low=1, high=50
    )
    latent_interval: int = setting(
        4, "The same for the latent stage. Raising: faster, rougher.", low=1, high=50
    )
    window: int = setting(
        5, "Computed steps that are decomposed. Raising: more modes; slower to forget.", low=4, high=16
    )
    rank_tolerance: float = setting(
        1e-4, "Smallest mode kept, as a share of the largest. Raising: fewer modes, calmer.", low=0.0, high=1.0
    )
    growth_limit: float = setting(
        1.05, "Largest growth of a mode per interval. Raising: livelier, less stable.", low=0.5, high=4.0
    )
    fallback_order: int = setting(
        2, "Order of the Hermite forecast until four even steps are known. No cost.", low=0, high=4
    )


class DmdPredictor:
    """Snapshots of every modality and, once there are enough at even spacing, their modes."""

    def __init__(self, config: DmdConfig) -> None:
        self.config = config
        self.fallback = HermitePredictor(config.fallback_order, 0.5)
        self._snapshots: deque[tuple[int, Velocity]] = deque(maxlen=config.window)
        self._modes: dict[str, DynamicModes] = {}

    def __len__(self) -> int:
        return len(self._snapshots)

    def add(self, index: int, values: Velocity) -> None:
        """Takes the values computed at step `index`; copies, because a pipeline may work in place."""
        self._snapshots.append((index, {name: value.detach().float().clone() for name, value in values.items()}))
        self._modes.clear()
        self.fallback.add(index, values)

    def predict(self, name: str, index: int) -> Tensor:
        """The value of a modality at step `index`."""
        tail = self._even_tail()
        if len(tail) < MINIMUM_SNAPSHOTS:
            return self.fallback.predict(name, index)
        if name not in self._modes:
            snapshots = [values[name] for _, values in tail]
            self._modes[name] = DynamicModes.fit(snapshots, self.config.rank_tolerance, self.config.growth_limit)
        newest, spacing = tail[-1][0], tail[-1][0] - tail[-2][0]
        return self._modes[name].forecast((index - newest) / spacing)

    def clear(self) -> None:
        """Forgets everything."""
        self._snapshots.clear()
        self._modes.clear()
        self.fallback.clear()

    def _even_tail(self) -> list[tuple[int, Velocity]]:
        """The longest run of newest snapshots whose spacing is the same."""
        entries = list(self._snapshots)
        first = max(len(entries) - 2, 0)
        while first > 0 and entries[first][0] - entries[first - 1][0] == entries[-1][0] - entries[-2][0]:
            first -= 1
        return entries[first:]


def _make(config: DmdConfig, trajectory: Trajectory) -> IntervalCaching:
    return IntervalCaching(config, trajectory, lambda: DmdPredictor(config))


register(Technique("dmd", DmdConfig, "velocity", STAGES, _make))
