"""Sites of attention modules that name their parts alike: `to_q`, `to_kv`, `to_qkv`, `to_out`, norms of heads.

SAM 3D Objects, TRELLIS and this library do, for dense and for sparse tensors (docs/facts.md, sections
S4.3, S7, S8 and S13). They differ in the attribute that holds the number of heads: `num_heads` or `heads`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fastsam3d.diffusion.sites import TENSORS, BlockSite, CrossAttentionSite, HiddenStates


def cross_attention_site(module: Any, states: HiddenStates = TENSORS, rows: int = 0) -> CrossAttentionSite:
    """The site of a cross-attention module.

    Args:
        module: has `to_q`, `to_kv` and `to_out`.
        states: what its layers hand on.
        rows: queries with which the module itself computes its output for a context of zeros; 0 for
            `W_o b_v + b_o`. The exact value is equal. The module rounds the mean of equal values in its own way, and a
            product of few rows may be summed in another order than one of many.
    """
    from fastsam3d.modules.attention import attend

    normed = getattr(module, "qk_rms_norm", False)

    def heads(x: Tensor, *parts: int) -> Tensor:
        return x.unflatten(-1, (*parts, _heads(module), -1))

    def project_context(context: Tensor) -> tuple[Tensor, Tensor]:
        keys, values = heads(module.to_kv(context), 2).unbind(dim=2)
        if normed:
            keys = module.k_rms_norm(keys)
        return keys.contiguous(), values.contiguous()

    def attend_to(x: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        queries = heads(module.to_q(x))
        if normed:
            queries = module.q_rms_norm(queries)
        return module.to_out(attend(queries, keys, values))

    def constant(length: int) -> Tensor:
        weight = module.to_kv.weight
        if rows:
            # The tokens of the context are equal, so that one is projected. The queries do not matter.
            keys, values = project_context(weight.new_zeros(1, 1, module.to_kv.in_features))
            keys, values = (part.expand(-1, length, -1, -1).contiguous() for part in (keys, values))
            queries = torch.zeros_like(keys[:, :1]).expand(-1, rows, -1, -1)
            return module.to_out(attend(queries, keys, values))[:, :1]
        bias = module.to_kv.bias
        width = module.to_kv.out_features // 2
        values = weight.new_zeros(width) if bias is None else bias[width:]
        return module.to_out(values[None, None])

    return CrossAttentionSite(module, project_context, attend_to, constant, states)


def cross_attention_sites(block: Any, states: HiddenStates = TENSORS) -> list[CrossAttentionSite]:
    """The sites of a block's cross-attention: one module, or one for each stream of tokens."""
    attention = block.cross_attn
    modules = attention.values() if isinstance(attention, nn.ModuleDict) else [attention]
    return [cross_attention_site(module, states) for module in modules]


def block_site(
    block: Any, states: HiddenStates = TENSORS, own: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]] | None = None
) -> BlockSite:
    """The site of a transformer block whose self-attention is over all tokens and knows no positions.

    Args:
        block: has `self_attn`.
        states: what its layers hand on.
        own: the module's own projection `x [1, T, C] -> (queries, keys, values)`, where it has one.
    """
    from fastsam3d.modules.attention import attend

    attention = block.self_attn

    def project(x: Tensor, h: Any) -> tuple[Tensor, Tensor, Tensor]:
        if own is not None:
            return own(x)
        queries, keys, values = attention.to_qkv(x).unflatten(-1, (3, _heads(attention), -1)).unbind(dim=2)
        if attention.qk_rms_norm:
            queries, keys = attention.q_rms_norm(queries), attention.k_rms_norm(keys)
        return queries, keys, values

    def attend_and_project(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        return attention.to_out(attend(queries, keys, values))

    return BlockSite(block, attention, project, attend_and_project, states)


def _heads(module: Any) -> int:
    """The module's number of heads."""
    return module.num_heads if hasattr(module, "num_heads") else module.heads
