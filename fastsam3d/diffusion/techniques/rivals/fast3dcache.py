"""Fast3Dcache (arXiv 2511.22533): in the first stage, shape tokens that have settled are left out of the network.

Three phases (docs/facts.md, section M4.2). First everything is computed. At an anchor step the estimates of
the final object at this step and the one before are decoded, and the number of voxels that flipped says how much is
still in motion; from there on it is taken to fall exponentially, and only as many tokens run as there are voxels in
motion. In the last phase a fixed share is left out, every third step nothing. Tokens with low velocity and low
acceleration are left out first, but not too often in a row; their velocity is the last one computed. The network sees
the others alone. Layout has no protection: it runs at every step and sees what shape tokens there are.

Where the description leaves a choice open it is taken here for quality: the anchor step itself is computed whole, the
last phase begins with a whole step, and the last step of all is whole.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fastsam3d.acceleration.registry import Technique
from fastsam3d.diffusion.maths import three_phases
from fastsam3d.diffusion.maths.spectral import min_max
from fastsam3d.diffusion.registry import register
from fastsam3d.diffusion.vocabulary import (
    SHAPE,
    SPARSE_STRUCTURE,
    Evaluate,
    Step,
    TechniqueConfig,
    Trajectory,
    Velocity,
    setting,
)


@dataclass(frozen=True)
class Fast3DcacheConfig(TechniqueConfig):
    """Settings of Fast3Dcache."""

    enabled: bool = setting(False, "Switches the technique.")
    decay: float = setting(
        -0.07,
        "Exponent per step of the number of voxels in motion. Lowering: faster, rougher.",
        low=-1.0,
        high=0.0,
    )
    last_phase_skipped: float = setting(
        0.7, "Share of the tokens left out in the last phase. Raising: faster, rougher.", low=0.0, high=0.99
    )
    last_phase_refresh: int = setting(
        3, "Every so many steps of the last phase all tokens run. Raising: faster, rougher.", low=1, high=50
    )
    acceleration_weight: float = setting(
        0.7, "Share of acceleration, against velocity, in a token's importance. No cost.", low=0.0, high=1.0
    )
    streak_limit: int = setting(
        8, "Steps in a row that may leave out one token. Raising: faster; tokens go stale.", low=1, high=50
    )


class Fast3Dcache:
    """State and policy of one run. A batch of several objects is computed as it is."""

    def __init__(self, config: Fast3DcacheConfig, trajectory: Trajectory) -> None:
        self.config, self.trajectory = config, trajectory
        self.first_end, self.last_start, self.anchor = three_phases(trajectory.count)
        self.in_motion: float | None = None  # voxels that flipped at the anchor
        self.voxels_per_token = 1.0
        self._logits: Tensor | None = None  # of the estimate at the step before the anchor
        self._velocity: Tensor | None = None  # of every shape token as last computed [1, T, C]
        self._before: Tensor | None = None  # the same, one step earlier
        self._streak: Tensor | None = None  # steps in a row that left each token out [T]

    def velocity(self, x: Velocity, step: Step, evaluate: Evaluate) -> Velocity:
        """Velocity of one step, of all tokens or of those in motion."""
        skipped = self._skipped(step, x[SHAPE])
        if skipped is None or not bool(skipped.any()):
            velocity = evaluate(x).combined()
            self._streak = torch.zeros(x[SHAPE].shape[1], dtype=torch.int64, device=x[SHAPE].device)
        else:
            assert self._velocity is not None
            assert self._streak is not None
            velocity = evaluate(x, subset=torch.nonzero(~skipped)[:, 0]).combined()
            kept = self._velocity.to(velocity[SHAPE].dtype)
            velocity = {**velocity, SHAPE: torch.where(skipped[None, :, None], kept, velocity[SHAPE])}
            self._streak = torch.where(skipped, self._streak + 1, torch.zeros_like(self._streak))
        self._before, self._velocity = self._velocity, velocity[SHAPE]
        if step.index in (self.anchor - 1, self.anchor):
            self._look(x, velocity, step)
        return velocity

    def tokens_in_motion(self, index: int) -> int:
        """Tokens that run at a step of the middle phase: `exp(mu j + b)` voxels, by voxels a token."""
        assert self.in_motion is not None
        voxels = self.in_motion * math.exp(self.config.decay * (index - self.anchor))
        return math.ceil(voxels / self.voxels_per_token)

    def _skipped(self, step: Step, shape: Tensor) -> Tensor | None:
        index, count = step.index, shape.shape[1]
        early = index < self.first_end or index <= self.anchor or self._velocity is None
        if early or step.is_last or self.trajectory.shortcut or self.in_motion is None or shape.shape[0] > 1:
            return None
        if index < self.last_start:
            # One token at least: a network is never asked about nothing.
            budget = count - min(count, max(1, self.tokens_in_motion(index)))
        elif (index - self.last_start) % self.config.last_phase_refresh == 0:
            return None
        else:
            budget = int(self.config.last_phase_skipped * count)
        return self._calmest(budget)

    def _calmest(self, budget: int) -> Tensor:
        assert self._velocity is not None
        assert self._streak is not None
        size = self._velocity[0].float().norm(dim=-1)
        change = torch.zeros_like(size)
        if self._before is not None:
            change = (self._velocity - self._before)[0].float().norm(dim=-1)
        weight = self.config.acceleration_weight
        score = weight * min_max(change) + (1.0 - weight) * min_max(size)
        chosen = torch.zeros_like(score, dtype=torch.bool)
        chosen[torch.sort(score, stable=True).indices[:budget]] = True
        return chosen & (self._streak < self.config.streak_limit)

    def _look(self, x: Velocity, velocity: Velocity, step: Step) -> None:
        """Decodes the estimate of the final object, `x + (1 - t) v`, and counts the voxels that flipped since."""
        if self.trajectory.occupancy is None:
            return
        estimate = {name: x[name] + (1.0 - step.time) * velocity[name] for name in x}
        logits = self.trajectory.occupancy(estimate)
        if self._logits is not None:
            self.in_motion = max(1.0, float(((logits > 0) != (self._logits > 0)).sum()))
            self.voxels_per_token = logits.numel() / x[SHAPE].shape[1]
        self._logits = logits if step.index < self.anchor else None


register(
    Technique(
        "fast3dcache",
        Fast3DcacheConfig,
        "velocity",
        (SPARSE_STRUCTURE,),
        Fast3Dcache,
        needs=("subset", "occupancy"),
    )
)
