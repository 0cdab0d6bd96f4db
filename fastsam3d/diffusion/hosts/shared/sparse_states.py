"""Reads and writes hidden states that are sparse tensors, as in SAM 3D Objects and TRELLIS."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from fastsam3d.diffusion.sites import Forward, HiddenStates


class SparseStates(HiddenStates):
    """Sparse tensors with `feats [N, C]`, `coords [N, 4]`, a batch size in `shape[0]` and `replace(feats)`.

    A tensor of several objects is left to the network: its attention keeps the objects apart by their layout, which the
    functions of a site do not know.
    """

    def accepts(self, h: Any) -> bool:
        return hasattr(h, "feats") and int(h.shape[0]) == 1

    def read(self, h: Any) -> Tensor:
        return h.feats[None]

    def write(self, h: Any, tokens: Tensor, kept: Tensor | None = None) -> Any:
        if kept is None:
            return h.replace(tokens[0])
        # A new tensor and not `replace`: layout and index tables of `h` are those of all voxels.
        return type(h)(feats=tokens[0], coords=h.coords.index_select(0, kept))

    def through(self, make: Callable[[Forward], Forward]) -> Callable[[Forward], Forward]:
        def made(original: Forward) -> Forward:
            def forward(h: Any, *args: Any, **kwargs: Any) -> Any:
                if not self.accepts(h):
                    return original(h, *args, **kwargs)

                def on_tokens(tokens: Tensor, *rest: Any, **named: Any) -> Tensor:
                    return self.read(original(self.write(h, tokens), *rest, **named))

                return self.write(h, make(on_tokens)(self.read(h), *args, **kwargs))

            return forward

        return made


SPARSE = SparseStates()
