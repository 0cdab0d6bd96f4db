"""Guidance-delta reuse: the unconditional pass runs at every few guided evaluations only.

Between them the guidance term `w (c - u)` is held, or continued in a line in flow time, while the conditional pass
runs at every step. Halves the cost of most guided steps (docs/facts.md, section M5.3 c; related to adaptive
guidance, arXiv 2312.12487).
"""

from __future__ import annotations

from dataclasses import dataclass

from fastsam3d.acceleration.registry import Technique
from fastsam3d.diffusion.maths import History, guidance_edges
from fastsam3d.diffusion.registry import register
from fastsam3d.diffusion.vocabulary import (
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
class GuidanceReuseConfig(TechniqueConfig):
    """Settings of guidance-delta reuse."""

    enabled: bool = setting(False, "Switches the technique.")
    stages: str = stages_setting()
    refresh_every: int = setting(
        3, "Guided evaluations from one unconditional pass to the next. Raising: faster, rougher.", low=1, high=50
    )
    first_steps: int = setting(
        2,
        "Guided evaluations with both passes at the start, where guidance changes most. Raising: slower, safer.",
        low=1,
        high=50,
    )
    order: int = setting(
        0, "Between them: 0 hold, 1 linear in flow time. Raising: no cost; follows a fading term.", low=0, high=2
    )


class GuidanceReuse:
    """State and policy of one run."""

    def __init__(self, config: GuidanceReuseConfig, trajectory: Trajectory) -> None:
        self.config = config
        self.edges = frozenset(guidance_edges(trajectory.guided))
        self.delta = History(config.order + 1)
        self._since_start = 0
        self._since_refresh = 0

    def evaluate(self, x: Velocity, step: Step, evaluate: Evaluate) -> GuidedVelocity:
        """One evaluation, with or without its unconditional pass."""
        if not step.is_guided:
            return evaluate(x)
        if step.index in self.edges:
            self.delta.clear()
            self._since_start = 0
        self._since_start += 1
        self._since_refresh += 1
        early = self._since_start <= self.config.first_steps
        if early or len(self.delta) == 0 or self._since_refresh >= self.config.refresh_every:
            guided = evaluate(x)
            if guided.delta is not None:
                self.delta.add(step.index, step.time, guided.delta)
            self._since_refresh = 0
            return guided
        conditional = evaluate(x, conditional_only=True).conditional
        delta = {
            name: self.delta.forecast(name, step.index, step.time, self.config.order) for name in conditional
        }
        return GuidedVelocity(conditional, delta, delta_is_forecast=True)


register(
    Technique(
        "guidance_reuse", GuidanceReuseConfig, "evaluation", STAGES, GuidanceReuse, needs=("conditional_only",)
    )
)
