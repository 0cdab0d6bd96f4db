"""Attention maps: how much some rows of a prompt attend to each group, averaged over all layers and heads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from fastsam3d.acceleration.patching import Patches
from fastsam3d.mllm.attention_rows import RowSet
from fastsam3d.mllm.host import Host
from fastsam3d.mllm.spans import Layout

CACHES = ("cache", "past_key_values")


def aggregated_map(
    host: Host, layout: Layout, rows: RowSet, run: Callable[..., Any], given: Mapping[str, Any], copies: int = 1
) -> Tensor:
    """Runs a prompt in full and averages its attention (the map of Fast3D), without any S x S matrix.

    Args:
        host: of the model.
        layout: of the samples.
        rows: that count.
        run: the decoder's `forward`.
        given: its keyword arguments.
        copies: rows of the batch for each sample; the first of them is run.

    Returns:
        (B, N) float32. The sum over the groups is less than 1: what is left goes to other tokens.
    """
    weights, total = rows.weights(layout), torch.zeros(layout.present.shape, device=layout.present.device)
    patches = Patches()

    def watched(index: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        def make(original: Callable[..., Any]) -> Callable[..., Any]:
            @wraps(original)
            def forward(hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
                attention = host.attention(index, hidden, kwargs, layout.live, weights)
                total.add_(layout.summed(attention.to(total.device)))
                return original(hidden, *args, **kwargs)

            return forward

        return make

    batch = {name: _of_samples(value, copies) for name, value in given.items() if name not in CACHES}
    try:
        for index, layer in enumerate(host.layers):
            patches.replace(layer, "forward", watched(index))
        with torch.no_grad():
            run(**batch | {"use_cache": False})
    finally:
        patches.restore()
    return total / len(host.layers)


def _of_samples(value: Any, copies: int) -> Any:
    return value[::copies] if isinstance(value, Tensor) and value.dim() >= 2 and len(value) > 1 else value
