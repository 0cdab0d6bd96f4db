"""HiCache (arXiv 2508.16984): the schedule of TaylorSeer on scaled Hermite polynomials instead of powers.

The contraction `sigma` tames high orders: at order 1 and sigma 0.5 the forecast has half of Taylor's slope. Interval,
order and sigma are those of its port to SAM 3D Objects (docs/facts.md, section M5.1), which does not force
the last step; ours computes it, `last_step`.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from fastsam3d.acceleration.registry import Technique
from fastsam3d.diffusion.maths import BackwardDifferences, hermite_forecast
from fastsam3d.diffusion.registry import register
from fastsam3d.diffusion.techniques.rivals.interval_caching import IntervalCaching, IntervalConfig
from fastsam3d.diffusion.vocabulary import STAGES, Trajectory, Velocity, setting


@dataclass(frozen=True)
class HiCacheConfig(IntervalConfig):
    """Settings of HiCache."""

    interval: int = setting(
        4, "Steps from one computed step to the next, first stage. Raising: faster, rougher.", low=1, high=50
    )
    latent_interval: int = setting(
        4, "The same for the latent stage. Raising: faster, rougher.", low=1, high=50
    )
    order: int = setting(2, "Highest order. Raising: no cost; sharper, less stable.", low=0, high=4)
    sigma: float = setting(
        0.5, "Contraction of the polynomials. No cost. Raising: livelier, less stable.", low=0.05, high=1.0
    )


class HermitePredictor:
    """Hermite forecast of every modality."""

    def __init__(self, order: int, sigma: float) -> None:
        self.sigma = sigma
        self.differences = BackwardDifferences(order)

    def __len__(self) -> int:
        return len(self.differences)

    def add(self, index: int, values: Velocity) -> None:
        """Takes the values computed at step `index`."""
        self.differences.add(index, values)

    def predict(self, name: str, index: int) -> Tensor:
        """The value of a modality at step `index`."""
        return hermite_forecast(self.differences.terms(name), index - self.differences.index, self.sigma)

    def clear(self) -> None:
        """Forgets everything."""
        self.differences.clear()


def _make(config: HiCacheConfig, trajectory: Trajectory) -> IntervalCaching:
    return IntervalCaching(config, trajectory, lambda: HermitePredictor(config.order, config.sigma))


register(Technique("hicache", HiCacheConfig, "velocity", STAGES, _make))
