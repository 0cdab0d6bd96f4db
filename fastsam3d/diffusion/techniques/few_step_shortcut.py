"""The control of the distilled mode: few steps of a network that is told how long they are, without guidance.

SAM 3D Objects' first stage was distilled for this (step size `d`; docs/facts.md, section M0.8). Its latent stage was
not, and takes plain fewer steps here. A network that was never trained with a step size, such as the shipped mini, runs
too, and poorly: the embedding it is given then means nothing to it.
"""

from __future__ import annotations

from dataclasses import dataclass

from fastsam3d.acceleration.registry import Technique
from fastsam3d.diffusion.registry import register
from fastsam3d.diffusion.vocabulary import SPARSE_STRUCTURE, STAGES, TechniqueConfig, setting


@dataclass(frozen=True)
class FewStepShortcutConfig(TechniqueConfig):
    """Settings of the control."""

    enabled: bool = setting(False, "Switches the technique.")
    sparse_structure_steps: int = setting(
        4, "Distilled steps of the first stage. Raising: slower, better.", low=1, high=1000
    )
    structured_latent_steps: int = setting(
        11, "Plain steps of the latent stage. Raising: slower, better.", low=1, high=1000
    )

    def steps(self, stage: str) -> int:
        """The step count asked for in `stage`."""
        return self.sparse_structure_steps if stage == SPARSE_STRUCTURE else self.structured_latent_steps

    def distilled(self, stage: str) -> bool:
        """Tells whether `stage` runs in its distilled mode."""
        return stage == SPARSE_STRUCTURE


register(Technique("few_step_shortcut", FewStepShortcutConfig, "steps", STAGES, needs=("shortcut",)))
