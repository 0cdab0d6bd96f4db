"""Step skipping and carving of the latent stage as the released Fast-SAM3D does them. For comparison only.

Use `adaptive_caching` and `token_carving` for work. What is wrong here is kept on purpose (docs/facts.md,
sections M2.2 to M2.5): the sensitivity divides the newest change of the output by the change of state before it, and
that one spans many steps after a skip; skips have no limit, the last step may be skipped, and warm-ups of 1, 2 and 3
are one and the same; the kept increment is `v - x`, which stays constant in the opposite direction of time. Carving
leaves out the given share, where the paper keeps it, voxel by voxel: the network does not see carved voxels at all,
and keeps their last velocity. With the released threshold hardly a step is computed on which it could carve.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fastsam3d.acceleration.registry import Technique
from fastsam3d.diffusion.maths.spectral import fine_structure, min_max
from fastsam3d.diffusion.registry import register
from fastsam3d.diffusion.vocabulary import (
    LATENT,
    STRUCTURED_LATENT,
    Evaluate,
    Step,
    TechniqueConfig,
    Trajectory,
    Velocity,
    setting,
)

FIRST_CARVED_STEP = 2
STREAK_LIMIT = 4
MOTION = (0.7, 0.3)
"""Weights of the velocity's change and of its size."""
SPATIAL_WEIGHT = 0.3


@dataclass(frozen=True)
class ReleasedLatentCachingConfig(TechniqueConfig):
    """Settings of the released latent caching, with the values of its scripts."""

    enabled: bool = setting(False, "Switches the technique.")
    threshold: float = setting(
        1.5,
        "Accumulated estimate below which steps are skipped; 1.5 computes about three. Raising: faster, rougher.",
        low=0.0,
        high=100.0,
    )
    warmup: int = setting(
        3, "Computed steps at the start; 1, 2 and 3 are the same. Raising: slower, safer.", low=1, high=50
    )
    carved_fraction: float = setting(
        0.1, "Share of the voxels left out; 0 carves nothing. Raising: faster, rougher.", low=0.0, high=0.95
    )


class ReleasedLatentCaching:
    """State and policy of one run."""

    def __init__(self, config: ReleasedLatentCachingConfig, trajectory: Trajectory) -> None:
        self.config = config
        self.sensitivity: float | None = None
        self.error = 0.0
        self._state: Tensor | None = None
        self._state_before: Tensor | None = None
        self._velocity: Tensor | None = None
        self._increment: Tensor | None = None
        self._tracked: Tensor | None = None  # velocity at the carving before
        self._streak: Tensor | None = None
        self.spatial: Tensor | None = None
        if trajectory.logits is not None and trajectory.coords is not None:
            self.spatial = fine_structure(trajectory.logits, trajectory.coords)

    def velocity(self, x: Velocity, step: Step, evaluate: Evaluate) -> Velocity:
        """Velocity of one step."""
        state = x[LATENT].float()
        if self._skips(state, step):
            assert self._increment is not None
            velocity = state + self._increment
            self._state, self._velocity = state, velocity
        else:
            velocity = self._compute(x, state, step, evaluate)
        return {LATENT: velocity}

    def _skips(self, state: Tensor, step: Step) -> bool:
        known = (self.sensitivity, self._state, self._state_before, self._velocity)
        if step.index >= self.config.warmup and all(value is not None for value in known):
            assert self.sensitivity is not None
            assert self._velocity is not None
            self.error += self.sensitivity * _distance(state, self._state) / (float(self._velocity.abs().mean()) + 1e-6)
            if self.error < self.config.threshold:
                return True
        self.error = 0.0
        return False

    def _compute(self, x: Velocity, state: Tensor, step: Step, evaluate: Evaluate) -> Tensor:
        active = self._active(step)
        velocity = (evaluate(x) if active is None else evaluate(x, subset=active)).combined()[LATENT].float()
        if active is not None:
            assert self._velocity is not None
            velocity = self._velocity.index_copy(1, active, velocity.index_select(1, active))
        if self._state is not None and self._state_before is not None:
            # One step apart: the output changed since `_state`, the state is measured before it.
            newest = _distance(velocity, self._velocity) / (_distance(self._state, self._state_before) + 1e-8)
            self.sensitivity = newest if self.sensitivity is None else 0.7 * self.sensitivity + 0.3 * newest
        if self._state is not None:
            self._state_before = self._state
        self._state, self._velocity, self._increment = state, velocity, velocity - state
        return velocity

    def _active(self, step: Step) -> Tensor | None:
        """Voxels that run, None for all."""
        if self._velocity is None or step.index < FIRST_CARVED_STEP:
            return None
        last = self._velocity[0]
        carved = int(self.config.carved_fraction * len(last))
        if not 0 < carved < len(last):
            return None
        if self._streak is None:
            self._streak = torch.zeros(len(last), dtype=torch.int64, device=last.device)
        size = last.norm(dim=-1)
        change = torch.zeros_like(size) if self._tracked is None else (last - self._tracked).norm(dim=-1)
        score = MOTION[0] * min_max(change) + MOTION[1] * min_max(size)
        if self.spatial is not None:
            score = SPATIAL_WEIGHT * min_max(self.spatial) + (1.0 - SPATIAL_WEIGHT) * score
        skipped = torch.zeros_like(score, dtype=torch.bool)
        skipped[torch.topk(score, carved, largest=False).indices] = True
        skipped &= self._streak < STREAK_LIMIT
        self._streak = torch.where(skipped, self._streak + 1, torch.zeros_like(self._streak))
        self._tracked = last
        return torch.nonzero(~skipped)[:, 0] if bool(skipped.any()) else None


def _distance(a: Tensor, b: Tensor | None) -> float:
    assert b is not None
    return float((a - b).abs().mean())


register(
    Technique(
        "released_latent_caching",
        ReleasedLatentCachingConfig,
        "velocity",
        (STRUCTURED_LATENT,),
        ReleasedLatentCaching,
        needs=("subset",),
    )
)
