"""Joint spatiotemporal token carving of the latent stage (Fast-SAM3D, module 2, second half, its defects fixed).

At the steps at which the network runs, the calmest cells are left out of the transformer blocks: their keys and values
stay in view of the others, and their own change through the blocks is that of the last time. Calm means: low and
steady velocity, and little fine structure. Carved are cells of 2^3 voxels, because those are the transformer's tokens;
carving single voxels hardly empties a cell.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fastsam3d.acceleration.registry import Technique
from fastsam3d.diffusion.maths import guidance_edges
from fastsam3d.diffusion.maths.spectral import fine_structure, min_max
from fastsam3d.diffusion.registry import register
from fastsam3d.diffusion.vocabulary import (
    STRUCTURED_LATENT,
    Evaluate,
    GuidedVelocity,
    Step,
    TechniqueConfig,
    Trajectory,
    Velocity,
    setting,
)


@dataclass(frozen=True)
class TokenCarvingConfig(TechniqueConfig):
    """Settings of token carving."""

    enabled: bool = setting(False, "Switches the technique.")
    carved_fraction: float = setting(
        0.1, "Share of the cells that is skipped (not kept). Raising: faster, rougher.", low=0.0, high=0.95
    )
    warmup: int = setting(2, "Evaluations of all cells at the start. Raising: slower, safer.", low=1, high=50)
    streak_limit: int = setting(
        4,
        "Evaluations in a row that may leave out one cell. Raising: no cost; cells go stale.",
        low=1,
        high=50,
    )
    refresh_every: int = setting(
        0,
        "Every so many evaluations all cells are computed; 0 never. Raising (from 1): faster.",
        low=0,
        high=50,
    )
    change_weight: float = setting(
        0.7,
        "Share of velocity change, against velocity size, in the motion score. No cost.",
        low=0.0,
        high=1.0,
    )
    spatial_weight: float = setting(
        0.3, "Share of fine structure, against motion, in the score. No cost.", low=0.0, high=1.0
    )


def carving_score(
    size: Tensor, change: Tensor, structure: Tensor | None, change_weight: float, spatial_weight: float
) -> Tensor:
    """Importance of each token; all inputs and the result `[N]`.

    Every part is scaled to its own range (a constant part is zero and has no say). Without `structure` motion alone
    counts.
    """
    motion = change_weight * min_max(change) + (1.0 - change_weight) * min_max(size)
    if structure is None:
        return motion
    return spatial_weight * min_max(structure) + (1.0 - spatial_weight) * motion


def choose_carved(score: Tensor, streak: Tensor, fraction: float, streak_limit: int) -> Tensor:
    """Chooses the tokens that are left out: the least important, ties by lowest index.

    A token that was left out `streak_limit` times in a row is computed, and another takes its place.

    Args:
        score: importance `[N]`.
        streak: evaluations in a row that left each token out, `[N]` int.
        fraction: share of all tokens that is left out.
        streak_limit: see above.

    Returns:
        Mask `[N]`, true where left out.
    """
    carved = torch.zeros_like(score, dtype=torch.bool)
    allowed = torch.nonzero(streak < streak_limit)[:, 0]
    order = torch.sort(score[allowed], stable=True).indices
    # The rounding of binary fractions must not lose a token: 0.1 * 1000 is 100.
    carved[allowed[order[: int(fraction * score.numel() + 1e-9)]]] = True
    return carved


def cell_maximum(values: Tensor, cells: Tensor, count: int) -> Tensor:
    """Largest value among the voxels of each cell. `[N], [N] -> [count]`. One lively voxel keeps its cell."""
    result = torch.full((count,), -torch.inf, dtype=values.dtype, device=values.device)
    return result.scatter_reduce(0, cells, values, "amax")


class TokenCarving:
    """State and policy of one run. Needs the run's voxels and cells."""

    def __init__(self, config: TokenCarvingConfig, trajectory: Trajectory) -> None:
        assert trajectory.cells is not None
        assert trajectory.coords is not None
        self.config = config
        self.cells = trajectory.cells.long()
        self.count = int(self.cells.max()) + 1
        edges = guidance_edges(trajectory.guided)
        self.all_cells_at = frozenset({trajectory.count - 1, *edges})
        self.structure: Tensor | None = None
        if trajectory.logits is not None and config.spatial_weight > 0:
            fine = fine_structure(trajectory.logits, trajectory.coords)
            self.structure = cell_maximum(fine, self.cells, self.count)
        self.streak = torch.zeros(self.count, dtype=torch.int64, device=self.cells.device)
        self.evaluations = 0
        self._velocity: Tensor | None = None  # of the last evaluation, per voxel [N, C]
        self._change: Tensor | None = None  # of its velocity against the one before, per voxel [N]

    def evaluate(self, x: Velocity, step: Step, evaluate: Evaluate) -> GuidedVelocity:
        """One evaluation, of all cells or without the calmest."""
        tokens = self._active(step)
        guided = evaluate(x) if tokens is None else evaluate(x, tokens)
        self.evaluations += 1
        velocity = next(iter(guided.combined().values())).float().reshape(self.cells.shape[0], -1)
        if self._velocity is not None:
            self._change = (velocity - self._velocity).norm(dim=-1)
        self._velocity = velocity
        return guided

    def velocity(self, x: Velocity, step: Step, evaluate: Evaluate) -> Velocity:
        """The same as a velocity policy: every step is evaluated."""
        return self.evaluate(x, step, evaluate).combined()

    def _active(self, step: Step) -> Tensor | None:
        config = self.config
        refresh = config.refresh_every > 0 and self.evaluations % config.refresh_every == 0
        early = self.evaluations < config.warmup or self._velocity is None
        if early or refresh or step.index in self.all_cells_at:
            self.streak.zero_()
            return None
        assert self._velocity is not None
        size = cell_maximum(self._velocity.norm(dim=-1), self.cells, self.count)
        change = torch.zeros_like(size)
        if self._change is not None:
            change = cell_maximum(self._change, self.cells, self.count)
        score = carving_score(size, change, self.structure, config.change_weight, config.spatial_weight)
        carved = choose_carved(score, self.streak, config.carved_fraction, config.streak_limit)
        self.streak = torch.where(carved, self.streak + 1, torch.zeros_like(self.streak))
        active = torch.nonzero(~carved)[:, 0]
        return None if len(active) == self.count else active


def _make(config: TokenCarvingConfig, trajectory: Trajectory) -> TokenCarving | None:
    possible = trajectory.stage == STRUCTURED_LATENT and trajectory.cells is not None
    return TokenCarving(config, trajectory) if config.enabled and possible else None


register(
    Technique(
        "token_carving", TokenCarvingConfig, "evaluation", (STRUCTURED_LATENT,), _make, needs=("tokens",)
    )
)
