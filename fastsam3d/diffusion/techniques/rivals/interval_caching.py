"""Runs the network every few steps and predicts the steps between: the common part of the interval methods.

TaylorSeer, HiCache and dynamic mode decomposition differ in the predictor alone. As published they forecast the
guided velocity as a whole, step by step; `guidance_apart` keeps conditional velocity and guidance term apart instead,
and starts both anew at a guidance edge.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from fastsam3d.diffusion.maths import full_steps, guidance_edges
from fastsam3d.diffusion.vocabulary import (
    SPARSE_STRUCTURE,
    Evaluate,
    GuidedVelocity,
    Step,
    TechniqueConfig,
    Trajectory,
    Velocity,
    setting,
    stages_setting,
)


@dataclass(frozen=True)
class IntervalConfig(TechniqueConfig):
    """Settings that every interval method has."""

    enabled: bool = setting(False, "Switches the technique.")
    stages: str = stages_setting()
    interval: int = setting(
        3, "Steps from one computed step to the next, first stage. Raising: faster, rougher.", low=1, high=50
    )
    latent_interval: int = setting(
        6, "The same for the latent stage. Raising: faster, rougher.", low=1, high=50
    )
    first_steps: int = setting(
        2, "Computed steps at the start of a stage. Raising: slower, safer.", low=1, high=50
    )
    last_step: bool = setting(True, "The last step of a stage is computed. On: one step slower, safer.")
    guidance_apart: bool = setting(
        False,
        "Conditional velocity and guidance term are forecast apart; off as published, where the end of guidance "
        "looks like motion. On: a computed step more at the edge, more accurate.",
    )


class Predictor(Protocol):
    """Keeps the computed values of all modalities and predicts them at a later step."""

    def __len__(self) -> int: ...

    def add(self, index: int, values: Velocity) -> None:
        """Keeps the values that were computed at a step."""

    def predict(self, name: str, index: int) -> Tensor:
        """The value of a modality at a later step."""

    def clear(self) -> None:
        """Forgets everything."""


class IntervalCaching:
    """State and policy of one run.

    Args:
        config: the settings.
        trajectory: the run; in its distilled mode every step is computed.
        predictor: makes an empty predictor, of which there is one for each part that is forecast.
    """

    def __init__(
        self, config: IntervalConfig, trajectory: Trajectory, predictor: Callable[[], Predictor]
    ) -> None:
        guided = trajectory.guided
        interval = config.interval if trajectory.stage == SPARSE_STRUCTURE else config.latent_interval
        # A plan ends with a computed step; one that is a step too long leaves the last of the run to the interval.
        planned = guided if config.last_step else (*guided, guided[-1])
        plan = full_steps(planned, interval, config.first_steps, int(config.guidance_apart))
        self.plan = frozenset(range(trajectory.count) if trajectory.shortcut else plan)
        self.apart = config.guidance_apart
        self.edges = frozenset(guidance_edges(guided)) if self.apart else frozenset()
        self.conditional, self.delta = predictor(), predictor()
        self._names: tuple[str, ...] = ()

    def velocity(self, x: Velocity, step: Step, evaluate: Evaluate) -> Velocity:
        """Velocity of one step, computed or predicted."""
        if step.index in self.edges:
            self.conditional.clear()
            self.delta.clear()
        if step.index in self.plan or len(self.conditional) == 0:
            return self._compute(x, step, evaluate)
        conditional = self._predict(self.conditional, step)
        delta = self._predict(self.delta, step) if step.is_guided and len(self.delta) > 0 else None
        return GuidedVelocity(conditional, delta).combined()

    def _compute(self, x: Velocity, step: Step, evaluate: Evaluate) -> Velocity:
        guided = evaluate(x)
        velocity = guided.combined()
        self._names = tuple(velocity)
        self.conditional.add(step.index, guided.conditional if self.apart else velocity)
        if self.apart and guided.delta is not None and not guided.delta_is_forecast:
            self.delta.add(step.index, guided.delta)
        return velocity

    def _predict(self, predictor: Predictor, step: Step) -> Velocity:
        return {name: predictor.predict(name, step.index) for name in self._names}
