"""Fewer steps: the control that every other technique must beat at equal evaluations, and a partner of those that do.

A pipeline that is asked for fewer steps than these anyway keeps its own number.
"""

from __future__ import annotations

from dataclasses import dataclass

from fastsam3d.acceleration.registry import Technique
from fastsam3d.diffusion.registry import register
from fastsam3d.diffusion.vocabulary import SPARSE_STRUCTURE, STAGES, TechniqueConfig, setting


@dataclass(frozen=True)
class FewerStepsConfig(TechniqueConfig):
    """Settings."""

    enabled: bool = setting(False, "Switches the technique.")
    sparse_structure_steps: float = setting(
        10, "Steps of the first stage, at most. Raising: slower, better.", low=1, high=1000, share=True
    )
    structured_latent_steps: float = setting(
        11, "Steps of the latent stage, at most. Raising: slower, better.", low=1, high=1000, share=True
    )

    def steps(self, stage: str) -> float:
        """The step count asked for in `stage`; below 1, a share of the pipeline's own."""
        return self.sparse_structure_steps if stage == SPARSE_STRUCTURE else self.structured_latent_steps

    def distilled(self, stage: str) -> bool:
        """Tells whether `stage` runs in its distilled mode: never."""
        return False


register(Technique("fewer_steps", FewerStepsConfig, "steps", STAGES))
