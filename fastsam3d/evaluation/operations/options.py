"""Options of `flops`, in a module of their own: help needs no PyTorch."""

from __future__ import annotations

from dataclasses import dataclass

from fastsam3d.basics.options import option, whole, words


@dataclass(frozen=True)
class FlopsOptions:
    """Options of the command."""

    model: str = option("sam3d", str, "sam3d or mini: the sizes that are counted")
    voxels: int = option(10_000, whole(8), "voxels of the latent stage")
    acceleration: tuple[str, ...] = option(
        ("off", "exact", "paper", "accurate", "balanced", "fast"), words, "presets or preset files, a list, or all"
    )
