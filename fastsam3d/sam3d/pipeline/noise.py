"""Noise from which the sampled stages start. It is drawn on the CPU: a seed gives one object on every machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def structure_noise(shapes: Mapping[str, tuple[int, ...]], generators: Sequence[torch.Generator]) -> dict[str, Tensor]:
    """Draws noise of the first stage, one row for each generator, latent by latent in sorted order of their names.

    Args:
        shapes: of one object's latents, `[1, T, C]`.
    """
    drawn = [{name: torch.randn(shapes[name], generator=own) for name in sorted(shapes)} for own in generators]
    return {name: torch.cat([own[name] for own in drawn]) for name in sorted(shapes)}


def latent_noise(coords: Tensor, channels: int, generator: torch.Generator, resolution: int | None = None) -> Tensor:
    """Draws noise of the second stage, `[N, channels]`.

    Args:
        coords: voxels `[N, 4]`.
        resolution: with it noise is drawn for every cell of the grid and gathered, so that two runs whose voxels differ
            a little get the same noise where they agree.
    """
    if resolution is None:
        return torch.randn((len(coords), channels), generator=generator)
    grid = torch.randn((resolution, resolution, resolution, channels), generator=generator)
    x, y, z = coords[:, 1:].long().cpu().unbind(dim=1)
    return grid[x, y, z]
