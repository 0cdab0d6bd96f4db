"""MagCache (arXiv 2506.09045): passes are skipped by a curve that was measured once, without a look at the input.

`r_j` is the mean ratio of the magnitudes of the blocks' change at steps j and j - 1. Over skipped passes the ratios
multiply; `|1 - product|` adds up to an estimated error, and the network runs again when that exceeds a threshold, or
after so many skips. A skipped pass reuses the last change of the whole stack of blocks. Each guidance branch has its
curve (docs/facts.md, section M5.4; threshold 0.06, 3 skips, nothing in the first fifth: as published).

A curve belongs to one model, one stage and one guidance branch. For another number of steps it is resampled; for
another model measure it, see `fastsam3d.evaluation.tuning.magcache_curves`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from fastsam3d.acceleration.registry import Technique
from fastsam3d.diffusion.registry import register
from fastsam3d.diffusion.vocabulary import (
    SPARSE_STRUCTURE,
    STAGES,
    STRUCTURED_LATENT,
    TechniqueConfig,
    Trajectory,
    setting,
    stages_setting,
)
from fastsam3d.errors import UserError

CURVES = {
    SPARSE_STRUCTURE: ("sparse_structure_ratios", "sparse_structure_unconditional_ratios"),
    STRUCTURED_LATENT: ("structured_latent_ratios", "structured_latent_unconditional_ratios"),
}
"""Settings that hold the curves of a stage: conditional, unconditional."""

_CURVE = "Magnitude ratio of each step to the one before, measured. No cost."


@dataclass(frozen=True)
class MagCacheConfig(TechniqueConfig):
    """Settings of MagCache; the first ratio of a curve is 1."""

    enabled: bool = setting(False, "Switches the technique.")
    stages: str = stages_setting()
    threshold: float = setting(
        0.06, "Estimated error of the magnitude at which the network runs again. Raising: faster.", low=0.0, high=10.0
    )
    max_consecutive_skips: int = setting(
        3, "Longest run of skipped passes. Raising: faster, rougher.", low=0, high=50
    )
    retention: float = setting(
        0.2, "Share of the steps at the start that is computed. Raising: slower, safer.", low=0.0, high=1.0
    )
    last_step: bool = setting(True, "The last step of a stage is computed. On: one step slower, safer.")
    sparse_structure_ratios: tuple[float, ...] = setting((), _CURVE, low=1e-3, high=1e3)
    sparse_structure_unconditional_ratios: tuple[float, ...] = setting((), _CURVE, low=1e-3, high=1e3)
    structured_latent_ratios: tuple[float, ...] = setting((), _CURVE, low=1e-3, high=1e3)
    structured_latent_unconditional_ratios: tuple[float, ...] = setting((), _CURVE, low=1e-3, high=1e3)

    def __post_init__(self) -> None:
        super().__post_init__()
        for stage in STAGES if self.enabled else ():
            if self.stages in ("both", stage) and not all(getattr(self, name) for name in CURVES[stage]):
                raise UserError(
                    f"magcache has no curve for the {stage} stage: begin from acceleration=magcache, whose curves are "
                    f"those of the mini, or measure {' and '.join(CURVES[stage])} with "
                    "fastsam3d.evaluation.tuning.magcache_curves."
                )


def resampled(ratios: Sequence[float], steps: int, curve_steps: int) -> list[float]:
    """Converts ratios of consecutive steps to another number of steps over the same way.

    Magnitudes are interpolated, not ratios: a ratio spans one step, and steps are longer where there are fewer.

    Args:
        ratios: measured ratio of each step to the one before, the first is 1.
        steps: of the run.
        curve_steps: of the runs that were measured.
    """
    magnitude = np.cumsum(np.log(ratios))
    places = np.arange(len(ratios)) / curve_steps
    at = np.interp(np.arange(steps) / steps, places, magnitude)
    return [1.0, *np.exp(np.diff(at)).tolist()]


class MagCache:
    """State and block policy of one run."""

    probe = 0

    def __init__(self, config: MagCacheConfig, trajectory: Trajectory) -> None:
        self.config, self.trajectory = config, trajectory
        conditional, unconditional = (getattr(config, name) for name in CURVES[trajectory.stage])
        self.curves = {
            "conditional": resampled(conditional, trajectory.count, len(conditional)),
            "unconditional": resampled(unconditional, trajectory.count, len(conditional)),
        }
        self._known: set[tuple[str, int]] = set()
        self._product: dict[tuple[str, int], float] = {}
        self._error: dict[tuple[str, int], float] = {}
        self._skips: dict[tuple[str, int], int] = {}

    def reuse(self, key: tuple[str, int], step: int, probe: dict[str, Tensor]) -> bool:
        """Tells whether the stack of blocks is skipped in this pass."""
        if key not in self._known:
            return False
        self._product[key] *= self.curves[key[0]][step]
        self._error[key] += abs(1.0 - self._product[key])
        self._skips[key] += 1
        return (
            not self.trajectory.shortcut
            and step >= self.config.retention * self.trajectory.count
            and not (self.config.last_step and step == self.trajectory.count - 1)
            and self._error[key] <= self.config.threshold
            and self._skips[key] <= self.config.max_consecutive_skips
        )

    def computed(self, key: tuple[str, int], step: int, change: dict[str, Tensor]) -> None:
        """Notes a whole pass: the estimate starts anew."""
        self._known.add(key)
        self._product[key], self._error[key], self._skips[key] = 1.0, 0.0, 0


register(Technique("magcache", MagCacheConfig, "blocks", STAGES, MagCache, needs=("block_stack",)))
