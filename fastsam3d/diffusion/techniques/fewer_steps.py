"""Fewer steps: the control that every other technique must beat at equal evaluations, and a partner of those that do.

A pipeline that is asked for fewer steps than these anyway keeps its own number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fastsam3d.acceleration.registry import Technique, register
from fastsam3d.diffusion.vocabulary import SPARSE_STRUCTURE, STAGES, TechniqueConfig, setting


@dataclass(frozen=True)
class FewerStepsConfig(TechniqueConfig):
    """Settings."""

    enabled: bool = setting(False, "Switches the technique.")
    sparse_structure_steps: int = setting(
        10, "Steps of the first stage, at most. Raising: slower, better.", low=1, high=1000
    )
    structured_latent_steps: int = setting(
        11, "Steps of the latent stage, at most. Raising: slower, better.", low=1, high=1000
    )

    def steps(self, stage: str) -> int:
        """The step count asked for in `stage`."""
        return self.sparse_structure_steps if stage == SPARSE_STRUCTURE else self.structured_latent_steps

    def distilled(self, stage: str) -> bool:
        """Whether `stage` runs in its distilled mode: never."""
        return False


def avoid_edge(steps: int, times: Callable[[int], Sequence[float]], edges: Sequence[float]) -> int:
    """The smallest count from `steps` on that puts no step exactly on a guidance edge.

    A step on the edge is still guided, over its whole length, which disturbs the layout (a grid with rescale 3 does
    so at every count that is divisible by 4).

    Args:
        steps: the count asked for.
        times: the time grid of a count.
        edges: times (0..1) at which guidance ends or begins.
    """
    inner = [e for e in edges if 0.0 < e < 1.0]
    for count in range(steps, steps + 8):
        if not any(abs(t - e) < 1e-9 for t in times(count)[:-1] for e in inner):
            return count
    return steps


register(Technique("fewer_steps", FewerStepsConfig, "steps", STAGES))
