"""Exact saving: weights are cast for autocast once, not at every call.

Autocast keeps its casts of weights only where gradients are wanted, which is never the case at inference; so every
linear layer reads its fp32 weights and writes them in half precision each time it runs. Kept casts give the same bits.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fastsam3d.diffusion.exact.saving import ExactSaving, Nesting, PipelineTarget, register_saving
from fastsam3d.diffusion.sites import Forward
from fastsam3d.modules.tensor_versions import place_and_version


class CastWeights:
    """One linear layer's `forward` with its weights cast once, as long as they do not change.

    A change is seen where `modules.tensor_versions` sees it: loading and moving are, writing through `.data` is not.

    Memory: half as much again as the layer's fp32 weights, until the acceleration is taken off. The layer's own
    parameters are not touched.
    """

    def __init__(self, layer: Any) -> None:
        self.layer = layer
        self._key: tuple[Any, ...] = ()
        self._cast: tuple[Tensor, Tensor | None] = (torch.empty(0), None)

    def wrap(self, original: Forward) -> Forward:
        """The layer's `forward`; the original where autocast is off or would not cast."""

        def forward(x: Tensor) -> Tensor:
            kind = x.device.type
            if not torch.is_autocast_enabled(kind):
                return original(x)
            dtype, weight, bias = torch.get_autocast_dtype(kind), self.layer.weight, self.layer.bias
            if weight.dtype == dtype or weight.requires_grad:
                return original(x)
            key = (dtype, *(place_and_version(p) for p in (weight, bias) if p is not None))
            if key != self._key:
                self._key, self._cast = key, (weight.to(dtype), None if bias is None else bias.to(dtype))
            return F.linear(x, *self._cast)

        return forward


def _attach(target: PipelineTarget) -> None:
    for layer in target.host.cast_layers():
        target.patches.replace(layer, "forward", CastWeights(layer).wrap)


register_saving(
    ExactSaving(
        "cast_weights",
        "Under autocast, weights of the generators are cast once. Faster; memory: half as much again as their fp32 "
        "weights (1.9 GB for the official structure network).",
        Nesting.WEIGHTS,
        sites=("cast_layers",),
        attach=_attach,
        keeps="cast_weights",
    )
)
