"""Forecast by dynamic mode decomposition: damped oscillations through equally spaced snapshots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

MINIMUM_SNAPSHOTS = 4
"""Fewer snapshots do not determine two modes."""


@dataclass(frozen=True)
class DynamicModes:
    """Linear dynamics fitted to equally spaced snapshots, ready to be read at any horizon.

    Attributes:
        newest: the last snapshot, which also stands in where a prediction is not finite.
        modes, eigenvalues, amplitudes: complex; `sum_k amplitude_k eigenvalue_k^h mode_k` is the value `h` spacings
            after the newest. None where nothing could be fitted: the newest snapshot is held then.
    """

    newest: Tensor
    modes: Tensor | None = None
    eigenvalues: Tensor | None = None
    amplitudes: Tensor | None = None

    @classmethod
    def fit(
        cls, snapshots: Sequence[Tensor], rank_tolerance: float = 1e-4, growth_limit: float = 1.05
    ) -> DynamicModes:
        """Decomposes snapshots (oldest first, one shape, equally spaced in time); see `dmd_forecast`."""
        newest = snapshots[-1]
        if len(snapshots) < MINIMUM_SNAPSHOTS:
            return cls(newest)
        stack = torch.stack([s.reshape(-1).double() for s in snapshots], dim=1)
        before, after = stack[:, :-1], stack[:, 1:]
        try:
            u, s, vh = torch.linalg.svd(before, full_matrices=False)
            rank = int((s > rank_tolerance * s[0]).sum())
            if rank == 0:
                return cls(newest)
            u, s, vh = u[:, :rank], s[:rank], vh[:rank]
            reduced = after @ vh.T / s
            eigenvalues, vectors = torch.linalg.eig(u.T @ reduced)
            modes = reduced.to(vectors.dtype) @ vectors
            amplitudes = torch.linalg.lstsq(modes, stack[:, -1:].to(modes.dtype)).solution[:, 0]
        except torch.linalg.LinAlgError:
            return cls(newest)
        size = eigenvalues.abs()
        limited = eigenvalues * (growth_limit / size.clamp_min(1e-12))
        return cls(newest, modes, torch.where(size > growth_limit, limited, eigenvalues), amplitudes)

    def forecast(self, horizon: float) -> Tensor:
        """Value `horizon` spacings after the newest snapshot, of its shape and dtype."""
        if self.modes is None or self.eigenvalues is None or self.amplitudes is None:
            return self.newest
        powers = torch.exp(horizon * torch.log(self.eigenvalues))
        # A mode of eigenvalue zero has died out; its logarithm has not a number.
        powers = torch.where(self.eigenvalues.abs() < 1e-12, torch.zeros_like(powers), powers)
        prediction = (self.modes @ (powers * self.amplitudes)).real
        if not bool(torch.isfinite(prediction).all()):
            return self.newest
        return prediction.to(self.newest.dtype).reshape(self.newest.shape)


def dmd_forecast(
    snapshots: Sequence[Tensor], horizon: float, rank_tolerance: float = 1e-4, growth_limit: float = 1.05
) -> Tensor:
    """Continues equally spaced snapshots by their linear dynamics.

    Args:
        snapshots: oldest first, one shape, equally spaced in time.
        horizon: distance from the newest snapshot in units of the spacing; may be a fraction.
        rank_tolerance: modes whose singular value is below this share of the largest are dropped.
        growth_limit: modes that grow faster than this per spacing are limited to it, since their powers explode.

    Returns:
        Tensor of a snapshot's shape and dtype. The newest snapshot itself where there are fewer than four, or
        where the decomposition fails or is not finite.
    """
    return DynamicModes.fit(snapshots, rank_tolerance, growth_limit).forecast(horizon)
