"""Forecast by dynamic mode decomposition: damped oscillations through equally spaced snapshots."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

MINIMUM_SNAPSHOTS = 4
"""Fewer snapshots do not determine two modes."""


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
    newest = snapshots[-1]
    if len(snapshots) < MINIMUM_SNAPSHOTS:
        return newest
    stack = torch.stack([s.reshape(-1).double() for s in snapshots], dim=1)
    before, after = stack[:, :-1], stack[:, 1:]
    try:
        u, s, vh = torch.linalg.svd(before, full_matrices=False)
        rank = int((s > rank_tolerance * s[0]).sum())
        if rank == 0:
            return newest
        u, s, vh = u[:, :rank], s[:rank], vh[:rank]
        reduced = after @ vh.T / s
        eigenvalues, vectors = torch.linalg.eig(u.T @ reduced)
        modes = reduced.to(vectors.dtype) @ vectors
        amplitudes = torch.linalg.lstsq(modes, stack[:, -1:].to(modes.dtype)).solution[:, 0]
    except torch.linalg.LinAlgError:
        return newest
    size = eigenvalues.abs()
    eigenvalues = torch.where(
        size > growth_limit, eigenvalues * (growth_limit / size.clamp_min(1e-12)), eigenvalues
    )
    powers = torch.exp(horizon * torch.log(eigenvalues))
    # A mode of eigenvalue zero has died out; its logarithm has not a number.
    powers = torch.where(eigenvalues.abs() < 1e-12, torch.zeros_like(powers), powers)
    prediction = (modes @ (powers * amplitudes)).real
    if not bool(torch.isfinite(prediction).all()):
        return newest
    return prediction.to(newest.dtype).reshape(newest.shape)
