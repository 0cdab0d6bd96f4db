"""Exact layout on skipped steps: only the shape is forecast, the layout runs through the network at every step.

Shape never attends to layout, and layout is four tokens. With the shape's self-attention keys and values kept from the
last computed step, and the condition's cached, running the layout alone costs almost nothing, and pose no longer pays
for step caching; stale are the shape's keys only (docs/facts.md, section M1.8). It wraps whichever technique
caches steps of the first stage, and hides the layout from it: what is not forecast needs no correction either.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from fastsam3d.acceleration.registry import Technique
from fastsam3d.diffusion.registry import register
from fastsam3d.diffusion.vocabulary import (
    SHAPE,
    SPARSE_STRUCTURE,
    Evaluate,
    GuidedVelocity,
    Step,
    TechniqueConfig,
    Trajectory,
    Velocity,
    VelocityPolicy,
    setting,
)


@dataclass(frozen=True)
class ExactLayoutConfig(TechniqueConfig):
    """The switch; there is nothing to set."""

    enabled: bool = setting(
        False, "Runs the layout at steps whose shape is forecast. A little slower; pose stays that of the plain run."
    )


class ExactLayout:
    """Policy of one run around another, which sees the shape alone."""

    def __init__(self, config: ExactLayoutConfig, trajectory: Trajectory, policy: VelocityPolicy) -> None:
        self.policy = policy
        self._kept_guided = False  # whether the kept keys cover the unconditional branch

    def velocity(self, x: Velocity, step: Step, evaluate: Evaluate) -> Velocity:
        """Shape by the policy, layout by the network."""
        seen: list[GuidedVelocity] = []

        def shape_only(state: Velocity, *args: Any, **options: Any) -> GuidedVelocity:
            guided = evaluate({**x, **state}, *args, **options)
            seen.append(guided)
            self._kept_guided = self._kept_guided or (guided.delta is not None and not guided.delta_is_forecast)
            delta = None if guided.delta is None else {SHAPE: guided.delta[SHAPE]}
            return GuidedVelocity({SHAPE: guided.conditional[SHAPE]}, delta, guided.delta_is_forecast)

        shape = self.policy.velocity({SHAPE: x[SHAPE]}, step, cast(Evaluate, shape_only))
        if seen:
            layout = seen[-1].combined()
        elif step.is_guided and not self._kept_guided:
            layout = evaluate(x).combined()  # guidance begins on a forecast step: there are no keys for it yet
            self._kept_guided = True
        else:
            layout = evaluate(x, layout_only=True).combined()
        return {name: shape[SHAPE] if name == SHAPE else layout[name] for name in x}


register(
    Technique(
        "exact_layout", ExactLayoutConfig, "layout", (SPARSE_STRUCTURE,), ExactLayout, needs=("layout_only",)
    )
)
