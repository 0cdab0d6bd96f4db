"""EasyCache (arXiv 2507.02860): the network is skipped until its estimated change exceeds a threshold.

How much the output changes per change of the state, `k = |out_a - out_b| / |x_a - x_b|`, is measured on the last two
computed steps; while steps are skipped `err += k |dx| / |out|` adds up. A skipped step reuses the cached increment
`out - x`, each guidance branch its own; the decision is taken on the conditional branch (docs/facts.md, section M4.4).

The original is written for time that runs from data to noise, with `out = noise - data`. Seen from noise to data the
velocity has the other sign, and its `out - x` is our `-(v + x)`: that is the default. Ports that keep `v - x` on a
pipeline that runs from noise to data reuse a quantity that is not slow there (`increment`).
"""

from __future__ import annotations

from dataclasses import dataclass

from fastsam3d.acceleration.registry import Technique
from fastsam3d.diffusion.maths import relative_distance, sensitivity
from fastsam3d.diffusion.registry import register
from fastsam3d.diffusion.vocabulary import (
    SPARSE_STRUCTURE,
    STAGES,
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
class EasyCacheConfig(TechniqueConfig):
    """Settings of EasyCache.

    The thresholds of the original, 0.025 to 0.1, belong to 50 steps of video models, whose state moves little a step;
    those of its comparison on SAM 3D Objects, 2.0 and 2.5, skip four steps in five. The defaults lie between and are
    made for 25 steps.
    """

    enabled: bool = setting(False, "Switches the technique.")
    stages: str = stages_setting()
    threshold: float = setting(
        0.12,
        "Estimated relative change at which the first stage's network runs again. Raising: faster, rougher.",
        low=0.0,
        high=100.0,
    )
    latent_threshold: float = setting(
        0.25, "The same for the latent stage. Raising: faster, rougher.", low=0.0, high=100.0
    )
    first_steps: int = setting(
        4,
        "Computed steps at the start of a stage; two are whatever it says. Raising: slower, safer.",
        low=1,
        high=50,
    )
    last_step: bool = setting(True, "The last step of a stage is computed. On: one step slower, safer.")
    increment: str = setting(
        "v+x",
        "What stays constant over skipped steps: v+x is the method in time from noise to data. No cost.",
        choices=("v+x", "v-x"),
    )


class EasyCache:
    """State and policy of one run."""

    def __init__(self, config: EasyCacheConfig, trajectory: Trajectory) -> None:
        self.config = config
        first = trajectory.stage == SPARSE_STRUCTURE
        self.threshold = config.threshold if first else config.latent_threshold
        self.always = trajectory.shortcut
        self.sensitivity: float | None = None
        self.error = 0.0
        self._state: Velocity = {}  # of the last computed step
        self._cached: GuidedVelocity | None = None  # of the last computed step
        self._previous: Velocity = {}  # state of the step before this one, computed or not

    def velocity(self, x: Velocity, step: Step, evaluate: Evaluate) -> Velocity:
        """Velocity of one step, computed or from the cached increment."""
        cached = self._reusable(x, step)
        if cached is None:
            return self._compute(x, evaluate)
        self._previous = x
        sign = 1.0 if self.config.increment == "v+x" else -1.0
        conditional = {name: v + sign * (self._state[name] - x[name]) for name, v in cached.conditional.items()}
        # Both branches add the same change of state, hence their difference stays as it was.
        return GuidedVelocity(conditional, cached.delta if step.is_guided else None).combined()

    def _reusable(self, x: Velocity, step: Step) -> GuidedVelocity | None:
        if self.sensitivity is None or self._cached is None:
            return None
        allowed = (
            not self.always
            and step.index >= self.config.first_steps
            and not (self.config.last_step and step.is_last)
            and (self._cached.delta is not None or not step.is_guided)
        )
        if not allowed:
            return None  # without a look at the state, for which a GPU would have to be waited for
        self.error += self.sensitivity * relative_distance(x, self._previous, self._cached.conditional)
        return self._cached if self.error < self.threshold else None

    def _compute(self, x: Velocity, evaluate: Evaluate) -> Velocity:
        guided = evaluate(x)
        if self._cached is not None:
            self.sensitivity = sensitivity((guided.conditional, self._cached.conditional), (x, self._state))
        self._cached, self._state, self._previous = guided, x, x
        self.error = 0.0
        return guided.combined()


register(Technique("easycache", EasyCacheConfig, "velocity", STAGES, EasyCache))
