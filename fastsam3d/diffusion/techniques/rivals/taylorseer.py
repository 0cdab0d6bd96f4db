"""TaylorSeer (arXiv 2503.06923): between computed steps the velocity follows its own Taylor series, step by step.

The original caches what every module of a block puts out. At order 1 that gives the same update of the last layer as a
series of the velocity itself (the "lite" form of the diffusers port), which is also what the authors of Fast-SAM3D
compare with on SAM 3D: interval 3 in the first stage with the layout held at nine tenths of its last computed value,
interval 6 in the latent stage, order 1, two steps computed at the start (docs/facts.md, sections M1.4, M4.3).
These are the defaults here. Theirs leaves the last latent step to the forecast; ours computes it, `last_step`.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from fastsam3d.acceleration.registry import Technique
from fastsam3d.diffusion.maths import BackwardDifferences, taylor_forecast
from fastsam3d.diffusion.registry import register
from fastsam3d.diffusion.techniques.rivals.interval_caching import IntervalCaching, IntervalConfig
from fastsam3d.diffusion.vocabulary import LATENT, SHAPE, STAGES, Trajectory, Velocity, setting


@dataclass(frozen=True)
class TaylorSeerConfig(IntervalConfig):
    """Settings of TaylorSeer."""

    order: int = setting(
        1, "Highest order of the series. Raising: no cost; sharper, less stable.", low=0, high=4
    )
    layout_anchor: float = setting(
        0.9,
        "Share of the last computed value in a layout forecast; the rest is the series. No cost. Raising: stiffer.",
        low=0.0,
        high=1.0,
    )


class TaylorPredictor:
    """Taylor series of every modality; layout is drawn back to its last computed value."""

    def __init__(self, config: TaylorSeerConfig) -> None:
        self.layout_anchor = config.layout_anchor
        self.differences = BackwardDifferences(config.order)

    def __len__(self) -> int:
        return len(self.differences)

    def add(self, index: int, values: Velocity) -> None:
        """Takes the values computed at step `index`."""
        self.differences.add(index, values)

    def predict(self, name: str, index: int) -> Tensor:
        """The value of a modality at step `index`."""
        terms = self.differences.terms(name)
        series = taylor_forecast(terms, index - self.differences.index)
        if name in (SHAPE, LATENT):
            return series
        return self.layout_anchor * terms[0] + (1.0 - self.layout_anchor) * series

    def clear(self) -> None:
        """Forgets everything."""
        self.differences.clear()


def _make(config: TaylorSeerConfig, trajectory: Trajectory) -> IntervalCaching:
    return IntervalCaching(config, trajectory, lambda: TaylorPredictor(config))


register(Technique("taylorseer", TaylorSeerConfig, "velocity", STAGES, _make))
