"""Error-bounded adaptive step caching of the latent stage (Fast-SAM3D, module 2, first half, its defects fixed).

While the state moves, a forecast ages. How fast follows from the network's own sensitivity, measured between the last
two computed steps: `k = |c_a - c_b| / |x_a - x_b|`, both differences over the same pair (EasyCache). The estimated
relative error `sum k |dx| / |c|` is kept below a threshold; the run of skipped steps has a cap, a guidance edge starts
anew, and the last step is always computed.
"""

from __future__ import annotations

from dataclasses import dataclass

from fastsam3d.acceleration.registry import Technique
from fastsam3d.diffusion.maths import guidance_edges, relative_distance, sensitivity
from fastsam3d.diffusion.registry import register
from fastsam3d.diffusion.techniques.forecasting import ForecastRule, GuidedForecaster
from fastsam3d.diffusion.vocabulary import (
    STRUCTURED_LATENT,
    Evaluate,
    Step,
    TechniqueConfig,
    Trajectory,
    Velocity,
    count_of,
    setting,
)


@dataclass(frozen=True)
class AdaptiveCachingConfig(TechniqueConfig):
    """Settings of adaptive caching."""

    enabled: bool = setting(False, "Switches the technique.")
    threshold: float = setting(
        0.5,
        "Estimated relative error at which the network runs again. Raising: faster, rougher.",
        low=0.0,
        high=100.0,
    )
    warmup: float = setting(
        2, "Computed steps at the start; two are whatever it says. Raising: slower, safer.", low=1, high=50, share=True
    )
    max_consecutive_skips: int = setting(
        3, "Longest run of forecast steps. Raising: faster; forecasts far ahead go astray.", low=0, high=50
    )
    order: int = setting(
        1,
        "Forecast: 0 hold, 1 linear, 2 quadratic in flow time. Raising: no cost; sharper, less stable.",
        low=0,
        high=2,
    )
    guidance_order: int = setting(1, "The same for the guidance term.", low=0, high=2)
    corrector: bool = setting(
        True, "A computed step takes back what the forecasts before it were off by. No cost; more accurate."
    )
    edge_steps: int = setting(
        2, "Computed steps from a guidance edge on. Raising: slower, safer.", low=1, high=10
    )
    safety_factor: float = setting(
        3.0,
        "A forecast longer than this many times the last computed velocity gives way to it. Raising: riskier.",
        low=1.0,
        high=100.0,
    )


class AdaptiveCaching:
    """State and policy of one run."""

    def __init__(self, config: AdaptiveCachingConfig, trajectory: Trajectory) -> None:
        self.config = config
        edges = guidance_edges(trajectory.guided)
        self.edges = frozenset(edges)
        self.forced = frozenset(
            {trajectory.count - 1, *(e + k for e in edges for k in range(config.edge_steps))}
        )
        self.always = trajectory.shortcut
        self.warmup = count_of(config.warmup, trajectory.count)
        self.forecaster = GuidedForecaster(
            ForecastRule(
                config.order,
                config.guidance_order,
                corrector=config.corrector,
                safety_factor=config.safety_factor,
            )
        )
        self.sensitivity: float | None = None
        self.error = 0.0
        self.skips = 0
        self._computed: tuple[Velocity, Velocity] | None = (
            None  # state and conditional velocity, last computed step
        )
        self._previous: Velocity = {}  # state of the step before this one, computed or not

    def velocity(self, x: Velocity, step: Step, evaluate: Evaluate) -> Velocity:
        """Velocity of one step, computed or forecast."""
        if step.index in self.edges:
            self.forecaster.cross_edge()
            self.sensitivity, self._computed = None, None
        if self._may_skip(x, step):
            forecast = self.forecaster.forecast(step)
            if forecast is not None:
                self.skips += 1
                self._previous = x
                return forecast
        return self._compute(x, step, evaluate)

    def _may_skip(self, x: Velocity, step: Step) -> bool:
        if self.sensitivity is None or self._computed is None:
            return False
        allowed = (
            not self.always
            and step.index >= self.warmup
            and step.index not in self.forced
            and self.skips < self.config.max_consecutive_skips
        )
        if not allowed:
            return False  # without a look at the state, for which a GPU would have to be waited for
        self.error += self.sensitivity * relative_distance(x, self._previous, self._computed[1])
        return self.error < self.config.threshold

    def _compute(self, x: Velocity, step: Step, evaluate: Evaluate) -> Velocity:
        velocity, guided = self.forecaster.compute(x, step, evaluate)
        if self._computed is not None:
            # A state that did not move says nothing of sensitivity; then the next step is computed too.
            before = self._computed
            self.sensitivity = sensitivity((guided.conditional, before[1]), (x, before[0]))
        self._computed, self._previous = (x, guided.conditional), x
        self.error, self.skips = 0.0, 0
        return velocity


def _make(config: AdaptiveCachingConfig, trajectory: Trajectory) -> AdaptiveCaching | None:
    enabled = config.enabled and trajectory.stage == STRUCTURED_LATENT
    return AdaptiveCaching(config, trajectory) if enabled else None


register(Technique("adaptive_caching", AdaptiveCachingConfig, "velocity", (STRUCTURED_LATENT,), _make))
