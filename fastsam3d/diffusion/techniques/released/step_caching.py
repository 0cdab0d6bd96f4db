"""Step caching of the first stage as the released Fast-SAM3D does it, defects included. For comparison only.

Use `step_caching` for work. What is wrong here is kept on purpose (docs/facts.md, sections M1.3 to M1.7):
the guided velocity is cached as a whole, so that the end of guidance looks like motion; slopes are per step on a grid
of uneven steps; from step 24 on everything is computed, whatever the number of steps, and with fewer the last may be
forecast; the smoothing of the layout is overwritten and `momentum_beta` changes nothing; the distilled mode is
cached like any other.
"""

from __future__ import annotations

from dataclasses import dataclass

from fastsam3d.acceleration.registry import Technique
from fastsam3d.diffusion.maths import BackwardDifferences, taylor_forecast
from fastsam3d.diffusion.registry import register
from fastsam3d.diffusion.vocabulary import (
    SPARSE_STRUCTURE,
    Evaluate,
    Step,
    TechniqueConfig,
    Trajectory,
    Velocity,
    setting,
)


@dataclass(frozen=True)
class ReleasedStepCachingConfig(TechniqueConfig):
    """Settings of the released step caching, with its defaults."""

    enabled: bool = setting(False, "Switches the technique.")
    stride: int = setting(
        3, "Steps from one computed step to the next. Raising: faster, rougher.", low=1, high=50
    )
    warmup: int = setting(2, "Computed steps at the start. Raising: slower, safer.", low=1, high=50)
    order: int = setting(
        1,
        "Of the series; from 2 on it mixes spacings. Raising: no cost; sharper, less stable.",
        low=0,
        high=4,
    )
    momentum_beta: float = setting(0.5, "Without effect, as in the release. No cost.", low=0.0, high=1.0)


class ReleasedStepCaching:
    """State and policy of one run."""

    def __init__(self, config: ReleasedStepCachingConfig, trajectory: Trajectory) -> None:
        self.plan = frozenset(_computed_steps(trajectory.count, config.stride, config.warmup))
        # Late steps leave the series without slopes; nothing after them looks ahead where the plan fits 25 steps.
        self.last_slope = trajectory.count - config.warmup
        self.differences = BackwardDifferences(config.order)

    def velocity(self, x: Velocity, step: Step, evaluate: Evaluate) -> Velocity:
        """Velocity of one step; shape and layout are forecast alike."""
        if step.index not in self.plan:
            ahead = step.index - self.differences.index
            return {name: taylor_forecast(self.differences.terms(name), ahead) for name in x}
        velocity = evaluate(x).combined()
        if step.index > self.last_slope:
            self.differences.clear()
        self.differences.add(step.index, velocity)
        return velocity


def _computed_steps(steps: int, stride: int, warmup: int) -> list[int]:
    """Indices of the steps that are computed; the literal 24 is the release's."""
    full, counter = [], 0
    for j in range(steps):
        if j < warmup or counter == stride - 1 or j >= 24:
            full.append(j)
            counter = 0
        else:
            counter += 1
    return full


register(
    Technique(
        "released_step_caching", ReleasedStepCachingConfig, "velocity", (SPARSE_STRUCTURE,), ReleasedStepCaching
    )
)
