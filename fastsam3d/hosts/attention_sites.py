"""Where the parts of the attention modules are that SAM 3D Objects and TRELLIS have in common.

Both name them alike (`to_q`, `to_kv`, `to_qkv`, `to_out`, `q_rms_norm`, `k_rms_norm`, `num_heads`), for dense and for
sparse tensors (SAM 3D Objects architecture, sections 4.3, 7, 8 and 13).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fastsam3d.sites import BlockSite, CrossAttentionSite, Forward, HiddenStates

WINDOW_TABLES = "fastsam3d_voxel_tables"
"""Name under which a sparse tensor's own cache keeps our tables of its voxels, as it keeps the pipeline's."""


def cross_attention_site(module: Any, states: HiddenStates) -> CrossAttentionSite:
    """The site of a cross-attention module."""
    from fastsam3d.models.attention import attend

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
    from fastsam3d.models.attention import attend

    attention = block.self_attn

    def project(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        queries, keys, values = attention.to_qkv(x).unflatten(-1, (3, attention.num_heads, -1)).unbind(dim=2)
        if attention.qk_rms_norm:
            queries, keys = attention.q_rms_norm(queries), attention.k_rms_norm(keys)
        return queries, keys, values

    def attend_and_project(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        return attention.to_out(attend(queries, keys, values))

    return BlockSite(block, attention, project, attend_and_project, states)


def unmasked(site: BlockSite) -> Any:
    """Maker of a self-attention over all tokens of one object, which needs no mask to keep objects apart."""

    def make(original: Forward) -> Forward:
        def forward(x: Any) -> Any:
            if not site.states.accepts(x):
                return original(x)
            return site.states.write(x, site.attend(*site.project(site.states.read(x))))

        return forward

    return make


def windowed(attention: Any) -> Any:
    """Maker of a windowed self-attention that computes inside the windows only, without a mask over all pairs."""

    def make(original: Forward) -> Forward:
        from fastsam3d.models.sparse_tensor import SparseIndex
        from fastsam3d.models.windowed_attention import attend_in_windows

        def forward(x: Any) -> Any:
            shift = attention.shift_window
            if attention.qk_rms_norm or attention.use_rope or not isinstance(shift, int):
                return original(x)
            index = x.get_spatial_cache(WINDOW_TABLES)
            if index is None:
                index = SparseIndex(x.coords)
                x.register_spatial_cache(WINDOW_TABLES, index)
            windows = index.windows(attention.window_size, shift)
            qkv = attention.to_qkv(x.feats).unflatten(-1, (3, attention.num_heads, -1))
            return x.replace(attention.to_out(attend_in_windows(qkv, windows)))

        return forward

    return make


def builds_dense_masks(attention: Any) -> bool:
    """Whether a sparse attention module keeps windows and objects apart by masks over all pairs of tokens.

    So does the `sdpa` back end, which the pipeline takes on all cards but a few (section 8). The choice is made once,
    at import, in the modules of the functions that the attention calls.
    """
    names = getattr(type(attention).forward, "__globals__", {})
    back_ends = {getattr(f, "__globals__", {}).get("ATTN") for f in names.values() if callable(f)}
    return "sdpa" in back_ends
