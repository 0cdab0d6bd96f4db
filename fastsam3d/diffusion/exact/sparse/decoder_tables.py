"""Exact saving: a decoder that runs on another's voxels takes that decoder's neighbour tables.

The texture decoder of TRELLIS.2 follows the subdivisions of the shape decoder, so that its voxels are the same level by
level. Each keeps its tables with its own tensors, and builds them anew.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fastsam3d.diffusion.exact.saving import ExactSaving, Nesting, PipelineTarget, register_saving
from fastsam3d.diffusion.sites import Forward, TableSite


class DecoderTables:
    """Tables that one decoder has built and another may take, level by level."""

    def __init__(self) -> None:
        self._kept: list[tuple[Tensor, dict[str, Any]]] = []
        self._building = False
        self.taken = 0

    def clear(self) -> None:
        """Releases the kept tables: the object is done."""
        self._kept.clear()

    def decoding(self, original: Forward) -> Forward:
        """Wraps the first decoder's `forward`: its tables are kept, those of an earlier object are not."""

        def forward(*args: Any, **kwargs: Any) -> Any:
            self.clear()
            self._building = True
            try:
                return original(*args, **kwargs)
            finally:
                self._building = False

        return forward

    def keeping(self, site: TableSite) -> Callable[[Forward], Forward]:
        """Wraps a convolution of the first decoder."""

        def make(original: Forward) -> Forward:
            def forward(x: Any) -> Any:
                out = original(x)
                tables = site.read(x)
                if self._building and tables and all(coords is not x.coords for coords, _ in self._kept):
                    self._kept.append((x.coords, tables))
                return out

            return forward

        return make

    def taking(self, site: TableSite) -> Callable[[Forward], Forward]:
        """Wraps a convolution of the second decoder."""

        def make(original: Forward) -> Forward:
            def forward(x: Any) -> Any:
                if self._kept and not site.read(x):
                    self._hand_over(site, x)
                return original(x)

            return forward

        return make

    def _hand_over(self, site: TableSite, x: Any) -> None:
        for place, (coords, tables) in enumerate(self._kept):
            same = coords.shape == x.coords.shape and coords.device == x.coords.device
            if coords is x.coords or (same and torch.equal(coords, x.coords)):
                site.write(x, tables)
                # From now on it lives as long as the tensor's own: large tables go as the decoder goes up.
                del self._kept[place]
                self.taken += 1
                return


def _attach(target: PipelineTarget) -> None:
    for decoder, first, second in target.host.guided_decoders():
        tables = DecoderTables()
        for site in first:
            target.patches.replace(site.module, "forward", tables.keeping(site))
        for site in second:
            target.patches.replace(site.module, "forward", tables.taking(site))
        target.patches.replace(decoder, "forward", tables.decoding)
        target.at_end.append(tables.clear)


register_saving(
    ExactSaving(
        "decoder_tables",
        "Neighbour tables of the shape decoder taken by the texture decoder. Faster; memory: those of all levels, "
        "27 numbers a voxel, until the texture is decoded.",
        Nesting.TABLES,
        sites=("guided_decoders",),
        attach=_attach,
    )
)
