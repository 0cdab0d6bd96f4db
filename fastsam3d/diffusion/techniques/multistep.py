"""Multistep sampling: fewer steps of a rule of higher order, on a time grid of its own.

The pipeline samples by Euler's method, whose error falls only with the number of steps. Here every step also uses the
velocities of earlier steps: variable-step Adams-Bashforth. When the next velocity is known, Adams-Moulton corrects the
step before. This costs no evaluation. Conditional velocity and guidance are integrated separately. Guidance changes
slowly, so it is computed only at every few steps and held between them. Its integral ends exactly at the end of its
interval.

`multistep` acts on the sparse-structure stage, `latent_multistep` on the latent stage.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from fastsam3d.acceleration.registry import Technique
from fastsam3d.diffusion.maths import AdamsIntegral, bent_to_edge, chosen_steps, guidance_edges
from fastsam3d.diffusion.registry import register
from fastsam3d.diffusion.vocabulary import (
    SPARSE_STRUCTURE,
    STRUCTURED_LATENT,
    Evaluate,
    GuidedVelocity,
    Step,
    TechniqueConfig,
    Trajectory,
    Velocity,
    setting,
)

ON_EDGE = 1e-6
"""Distance in time within which a step begins on a guidance edge."""


@dataclass(frozen=True)
class MultistepConfig(TechniqueConfig):
    """Settings of multistep sampling; the help text of each field names unit and effect."""

    enabled: bool = setting(False, "Switches the technique.")
    steps: float = setting(
        0.68, "Share of the pipeline's own steps that are taken. Raising: slower, more accurate.", low=0.01, high=1.0
    )
    rescale: float = setting(
        0.0,
        "Bend of the time grid: 1 equal steps, more: shorter steps near noise; 0 the pipeline's own. No cost.",
        low=0.0,
        high=100.0,
    )
    hit_edge: bool = setting(True, "Bends the grid a little, so that a step begins where guidance ends. No cost.")
    own_grid: bool = setting(
        False,
        "Keeps the pipeline's grid and runs the network at a share of its steps, instead of fewer steps. No cost.",
    )
    ends: float = setting(
        0.0, "With own_grid: shortens the distance between computed steps at both ends. No cost.", low=0.0, high=0.95
    )
    error_bound: float = setting(
        0.0,
        "With own_grid: also runs the network at steps whose estimated error exceeds this share of the way from noise "
        "to data; 0 never. Raising: faster, less accurate.",
        low=0.0,
        high=1.0,
    )
    order: int = setting(
        2,
        "Values that a step uses: 1 Euler, 2 a line, 3 a parabola. Raising: no cost; sharper, less stable.",
        low=1,
        high=3,
    )
    last_order: int = setting(
        1, "The same for the last step, which is long and which nothing corrects. No cost.", low=1, high=3
    )
    corrector: int = setting(
        2,
        "Values that the correction of the step before uses, the new one among them: 2 trapezoidal; 0 none. No cost.",
        low=0,
        high=4,
    )
    guidance_every: int = setting(
        2, "Guided steps from one unconditional pass to the next. Raising: faster, rougher.", low=1, high=50
    )
    guidance_first: int = setting(
        1, "Unconditional passes at consecutive steps at the start. Raising: slower, safer.", low=1, high=50
    )
    guidance_order: int = setting(
        1,
        "Values that guidance uses: 1 holds the last one, 2 a line, which is unstable where guidance is strong.",
        low=1,
        high=3,
    )
    guidance_corrector: int = setting(2, "As corrector, for guidance. No cost; more accurate.", low=0, high=4)
    guidance_at_edge: bool = setting(
        True, "Computes guidance where it ends as well, to correct its last stretch. One evaluation more."
    )
    growth: float = setting(
        1.0,
        "Longest slope term and correction, in lengths of what they change. Raising: less stable on long steps.",
        low=0.0,
        high=100.0,
    )

    def count(self, steps: int) -> int:
        """Number of computed steps of a run for which the pipeline would take `steps`."""
        return max(1, round(self.steps * steps))

    def grid(self, steps: int, rescale: float, edges: Sequence[float]) -> tuple[int, float]:
        """Number of steps and bend of the time grid.

        Args:
            steps: the pipeline's own number.
            rescale: the bend that the pipeline has.
            edges: times (0..1) at which guidance begins or ends.
        """
        if self.own_grid:
            return steps, rescale
        count = self.count(steps)
        bend = self.rescale or rescale
        inner = [edge for edge in edges if 0.0 < edge < 1.0]
        return count, bent_to_edge(count, bend, max(inner)) if self.hit_edge and inner else bend


class Multistep:
    """State and policy of one run.

    Args:
        config: the settings.
        trajectory: the run. In distilled mode every step is the pipeline's own: with a long step size, the network's
            velocities are not on one curve.
    """

    def __init__(self, config: MultistepConfig, trajectory: Trajectory) -> None:
        self.config, self.shortcut = config, trajectory.shortcut
        # Without this option the unconditional pass runs at every step: slower, and as accurate.
        self.may_leave_out = "conditional_only" in trajectory.offers
        self.edges = [edge for edge in sorted(trajectory.edges) if 0.0 < edge < 1.0]
        self.conditional = AdamsIntegral(config.order, config.corrector, config.growth)
        self.guidance = AdamsIntegral(config.guidance_order, config.guidance_corrector, config.growth)
        count = trajectory.count
        self.plan: Sequence[int] = range(count)
        if config.own_grid:
            chosen = chosen_steps(trajectory.times, config.count(count), config.rescale or 1.0, config.ends)
            # Guidance that begins inside the run needs a value from its first step on.
            begins = (j for j in guidance_edges(trajectory.guided) if trajectory.guided[j])
            self.plan = sorted({*chosen, *begins})
        self._bend, self._computed_at = 0.0, 0.0
        self._guided_steps = 0  # of the present interval
        self._since_computed = 0

    def velocity(self, x: Velocity, step: Step, evaluate: Evaluate) -> Velocity:
        """Velocity that takes the state to the end of the step: prediction, and correction of the step before."""
        if self.shortcut:
            return evaluate(x).combined()
        guided_until = self._guided_until(step)
        changes: list[Velocity] = []
        if step.index in self.plan or self._exceeds_bound(step.next_time):
            guided = self._evaluated(x, step, guided_until, evaluate)
            changes.append(self.conditional.add(step.time, guided.conditional))
            if self._watches_error:
                self._bend, self._computed_at = self.conditional.bend(), step.time
            if guided.delta is not None and not guided.delta_is_forecast:
                changes.append(self.guidance.add(step.time, guided.delta))
        last = step.is_last or (step.index >= self.plan[-1] and not self._exceeds_bound(step.times[-1]))
        order = min(self.config.order, self.config.last_order) if last else None
        changes.append(self.conditional.advance(step.time, step.next_time, order))
        if guided_until > step.time:
            changes.append(self.guidance.advance(step.time, guided_until))
        if guided_until < step.next_time:
            self._end_guidance()
        duration = step.next_time - step.time
        return {name: torch.stack([c[name] for c in changes if name in c]).sum(0) / duration for name in x}

    @property
    def _watches_error(self) -> bool:
        return self.config.own_grid and self.config.error_bound > 0.0

    def _exceeds_bound(self, time: float) -> bool:
        """Tells whether the predictions of orders 1 and 2 differ by more than the bound at a time."""
        if not self._watches_error:
            return False
        return 0.5 * self._bend * (time - self._computed_at) ** 2 > self.config.error_bound

    def _guided_until(self, step: Step) -> float:
        """Time at which guidance ends within the step; the beginning of the step if it has no guidance."""
        if not step.is_guided or self._ends_on(step):
            return step.time
        later = [edge for edge in self.edges if edge > step.time + ON_EDGE]
        ends = not step.is_last and not step.guided[step.index + 1]
        return min([step.next_time, *later]) if ends or step.is_last else step.next_time

    def _ends_on(self, step: Step) -> bool:
        """Tells whether guidance ends where the step begins. The pipeline's test counts such a step as guided."""
        before = step.index > 0 and step.guided[step.index - 1]
        after = not step.is_last and step.guided[step.index + 1]
        return before and not after and any(abs(step.time - edge) < ON_EDGE for edge in self.edges)

    def _evaluated(self, x: Velocity, step: Step, guided_until: float, evaluate: Evaluate) -> GuidedVelocity:
        """Runs the network, with its unconditional pass where guidance is due."""
        if not step.is_guided or not self.may_leave_out:
            return evaluate(x)
        if guided_until <= step.time:
            due = self.config.guidance_at_edge and len(self.guidance) > 0
        else:
            self._guided_steps += 1
            self._since_computed += 1
            early = self._guided_steps <= self.config.guidance_first
            due = early or len(self.guidance) == 0 or self._since_computed >= self.config.guidance_every
        if not due:
            return evaluate(x, conditional_only=True)
        self._since_computed = 0
        return evaluate(x)

    def _end_guidance(self) -> None:
        self.guidance.clear()
        self._guided_steps = self._since_computed = 0


def _make(stage: str) -> Callable[[MultistepConfig, Trajectory], Multistep | None]:
    def make(config: MultistepConfig, trajectory: Trajectory) -> Multistep | None:
        return Multistep(config, trajectory) if config.enabled and trajectory.stage == stage else None

    return make


@dataclass(frozen=True)
class LatentMultistepConfig(MultistepConfig):
    """The same settings for the latent stage."""


register(
    Technique(
        "multistep",
        MultistepConfig,
        "velocity",
        (SPARSE_STRUCTURE,),
        _make(SPARSE_STRUCTURE),
        uses=("conditional_only",),
    )
)
register(
    Technique(
        "latent_multistep",
        LatentMultistepConfig,
        "velocity",
        (STRUCTURED_LATENT,),
        _make(STRUCTURED_LATENT),
        uses=("conditional_only",),
    )
)
