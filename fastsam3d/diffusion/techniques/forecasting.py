"""Forecasts guided velocities and corrects them afterwards: the common part of the caching techniques.

Conditional velocity `c` and guidance term `g = w (c - u)` are kept and forecast apart, modality by modality, so that
the end of the guidance interval does not look like motion. Only computed values are kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fastsam3d.diffusion.maths import Corrector, History
from fastsam3d.diffusion.vocabulary import LATENT, SHAPE, Evaluate, GuidedVelocity, Step, Velocity, bounded

CORRECTOR_DEGREE = 2
"""Degree of the corrector's interpolation: one above a linear forecast, as in the classical multistep pairs."""


@dataclass(frozen=True)
class ForecastRule:
    """Rule by which velocities are forecast.

    Attributes:
        order, guidance_order: of the polynomials of `c` and of `g`: 0 hold, 1 linear, 2 quadratic.
        axis: "time" or "index", see `History.forecast`.
        momentum_beta: for layout, the share of the linear forecast; the rest is the last computed value.
        corrector: whether a computed step takes back what the forecasts before it were off by.
        safety_factor: longest forecast, in lengths of the last computed velocity.
    """

    order: int
    guidance_order: int
    axis: str = "time"
    momentum_beta: float = 1.0
    corrector: bool = False
    safety_factor: float = 3.0


class GuidedForecaster:
    """Computed and forecast velocities of one run."""

    def __init__(self, rule: ForecastRule) -> None:
        self.rule = rule
        depth = max(rule.order, rule.guidance_order, 1) + 1
        self.conditional, self.delta = History(depth), History(depth)
        self.last: Velocity = {}
        self._corrector, self._guidance_corrector = Corrector(CORRECTOR_DEGREE), Corrector(CORRECTOR_DEGREE)

    def cross_edge(self) -> None:
        """Forgets earlier values where guidance begins or ends: no slope may span the kink of the trajectory there."""
        self.conditional.clear()
        self.delta.clear()
        # The conditional velocity itself is continuous there, so that interpolation may go on; guidance is not.
        self._guidance_corrector.clear()

    def compute(self, x: Velocity, step: Step, evaluate: Evaluate) -> tuple[Velocity, GuidedVelocity]:
        """Runs the network. Returns the velocity to integrate and the output of the network."""
        guided = evaluate(x)
        self.conditional.add(step.index, step.time, guided.conditional)
        if guided.delta is not None and not guided.delta_is_forecast:
            self.delta.add(step.index, step.time, guided.delta)
        self.last = guided.combined()
        return self._corrected(step, guided), guided

    def forecast(self, step: Step) -> Velocity | None:
        """The velocity of a step that is not computed; None where nothing is known to forecast from.

        A forecast that is not finite, or longer than `safety_factor` allows, is replaced by the last computed values.
        """
        if len(self.conditional) == 0:
            return None
        c = {name: self._modality(self.conditional, name, step, self.rule.order) for name in self.last}
        g = None
        if step.is_guided and len(self.delta) > 0:
            g = {name: self._modality(self.delta, name, step, self.rule.guidance_order) for name in self.last}
        c, g = self._held_where_wrong(c, g)
        velocity = GuidedVelocity(c, g).combined()
        if self.rule.corrector:
            duration = step.next_time - step.time
            self._corrector.skipped(step.index, step.time, duration, c)
            if g is not None:
                self._guidance_corrector.skipped(step.index, step.time, duration, g)
        return velocity

    def _held_where_wrong(self, c: Velocity, g: Velocity | None) -> tuple[Velocity, Velocity | None]:
        """Returns the forecast, or the last computed values where the forecast is not finite or too long.

        Chosen on the device: computing the step instead would make the host wait for an answer at every forecast step,
        which on a GPU costs more than the step, and another rule there would give another object from the same seed.
        """
        fine = bounded(GuidedVelocity(c, g).combined(), self.last, self.rule.safety_factor)
        c = {name: torch.where(fine, value, self.conditional.newest(name)) for name, value in c.items()}
        if g is not None:
            g = {name: torch.where(fine, value, self.delta.newest(name)) for name, value in g.items()}
        return c, g

    def _modality(self, history: History, name: str, step: Step, order: int) -> Tensor:
        axis, beta = self.rule.axis, self.rule.momentum_beta
        if name in (SHAPE, LATENT):
            return history.forecast(name, step.index, step.time, order, axis)
        linear = history.forecast(name, step.index, step.time, min(order, 1), axis)
        return beta * linear + (1.0 - beta) * history.newest(name)

    def _corrected(self, step: Step, guided: GuidedVelocity) -> Velocity:
        errors = [self._corrector.computed(step.index, step.time, guided.conditional)]
        if guided.delta is not None and not guided.delta_is_forecast:
            errors.append(self._guidance_corrector.computed(step.index, step.time, guided.delta))
        velocity, duration = self.last, step.next_time - step.time
        for error in errors:
            velocity = {name: v - error[name] / duration if error else v for name, v in velocity.items()}
        return velocity
