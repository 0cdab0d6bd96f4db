"""Attention maps: how much some rows of a prompt attend to each group, averaged over all layers and heads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from fastsam3d.acceleration.patching import Patches
from fastsam3d.errors import UserError
from fastsam3d.mllm import hosts
from fastsam3d.mllm.attention_rows import RowSet
from fastsam3d.mllm.host import Host
from fastsam3d.mllm.spans import Layout, layout_of_prompts, live_tokens

CACHES = ("cache", "past_key_values")


def extract_maps(model: Any, visual: Any, rows: Sequence[RowSet], **inputs: Any) -> Tensor:
    """Computes attention maps of prompts, for instance to train a predictor on them.

    Args:
        model: a language model. All visual tokens stay in this run.
        visual: spans of its visual tokens, as for `acceleration.visual`.
        rows: sets of rows. Each gives one map.
        inputs: of the model: `input_ids` or `inputs_embeds`, and `attention_mask` where it is padded (on the left).

    Returns:
        (sets, B, N) float32, see `aggregated_maps`.

    Raises:
        UserError: no host knows the model or it cannot be pruned, there is no prompt, the batch is padded on the right,
            or the spans do not fit the prompts.
    """
    host = hosts.recognised(model)
    if host is None:
        raise UserError(f"a {type(model).__name__} gives no attention maps: give a language model of transformers")
    host.check()
    tokens = inputs.get("input_ids") if inputs.get("inputs_embeds") is None else inputs["inputs_embeds"]
    if tokens is None:
        raise UserError("there is no prompt to extract maps from: give input_ids or inputs_embeds")
    samples, columns = tokens.shape[:2]
    live = live_tokens(inputs.get("attention_mask"), samples, columns, tokens.device)
    layout = layout_of_prompts(visual, live, inputs.get("input_ids"))
    return aggregated_maps(host, layout, rows, host.decoder, inputs)


def aggregated_maps(
    host: Host,
    layout: Layout,
    rows: Sequence[RowSet],
    run: Callable[..., Any],
    given: Mapping[str, Any],
    copies: int = 1,
) -> Tensor:
    """Runs prompts in full and averages their attention over all layers and heads, without an S x S matrix.

    This is the map of Fast3D (ACM MM 2025).

    Args:
        host: of the model.
        layout: of the samples.
        rows: sets of rows. Each gives one map.
        run: the decoder's `forward`.
        given: its keyword arguments.
        copies: rows of the batch for each sample; the first of them is run.

    Returns:
        (sets, B, N) float32. The sum over the groups is less than 1, because other tokens get attention too.
    """
    weights = torch.stack([some.weights(layout) for some in rows])
    total = torch.zeros(len(rows), *layout.present.shape, device=layout.present.device)
    patches = Patches()

    def watched(index: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        def make(original: Callable[..., Any]) -> Callable[..., Any]:
            @wraps(original)
            def forward(hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
                keys = host.keys(index, hidden, kwargs)
                attention = host.attention(index, hidden, kwargs, keys, layout.live, weights).to(total.device)
                total.add_(torch.stack([layout.summed(of_set) for of_set in attention]))
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
