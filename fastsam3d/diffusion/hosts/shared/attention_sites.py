"""Where the parts of the attention modules are that SAM 3D Objects and TRELLIS have in common.

Both name them alike (`to_q`, `to_kv`, `to_qkv`, `to_out`, `q_rms_norm`, `k_rms_norm`, `num_heads`), for dense and for
sparse tensors (SAM 3D Objects architecture, sections 4.3, 7, 8 and 13).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fastsam3d.diffusion.sites import BlockSite, CrossAttentionSite, HiddenStates


def cross_attention_site(module: Any, states: HiddenStates) -> CrossAttentionSite:
    """The site of a cross-attention module."""
    from fastsam3d.modules.attention import attend

    def heads(x: Tensor, *parts: int) -> Tensor:
        return x.unflatten(-1, (*parts, module.num_heads, -1))

    def project_context(context: Tensor) -> tuple[Tensor, Tensor]:
        keys, values = heads(module.to_kv(context), 2).unbind(dim=2)
        if module.qk_rms_norm:
            keys = module.k_rms_norm(keys)
        return keys.contiguous(), values.contiguous()

    def attend_to(x: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        queries = heads(module.to_q(x))
        if module.qk_rms_norm:
            queries = module.q_rms_norm(queries)
        return module.to_out(attend(queries, keys, values))

    def constant() -> Tensor:
        bias = module.to_kv.bias
        width = module.to_kv.out_features // 2
        values = module.to_kv.weight.new_zeros(width) if bias is None else bias[width:]
        return module.to_out(values[None, None])

    return CrossAttentionSite(module, project_context, attend_to, constant, states)


def block_site(block: Any, states: HiddenStates) -> BlockSite:
    """The site of a transformer block whose self-attention is over all tokens."""
    from fastsam3d.modules.attention import attend

    attention = block.self_attn

    def project(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        queries, keys, values = attention.to_qkv(x).unflatten(-1, (3, attention.num_heads, -1)).unbind(dim=2)
        if attention.qk_rms_norm:
            queries, keys = attention.q_rms_norm(queries), attention.k_rms_norm(keys)
        return queries, keys, values

    def attend_and_project(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        return attention.to_out(attend(queries, keys, values))

    return BlockSite(block, attention, project, attend_and_project, states)






