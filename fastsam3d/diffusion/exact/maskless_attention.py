"""Exact saving: attends inside windows and objects instead of masking all pairs of tokens."""

from __future__ import annotations

from typing import Any

from fastsam3d.diffusion.exact.saving import ExactSaving, Nesting, PipelineTarget, register_saving
from fastsam3d.diffusion.sites import BlockSite, Forward

WINDOW_TABLES = "fastsam3d_voxel_tables"
"""Name under which a sparse tensor's own cache keeps our tables of its voxels, as it keeps the pipeline's."""


def unmasked(site: BlockSite) -> Any:
    """Makes a self-attention over all tokens of one object, which needs no mask to keep objects apart."""

    def make(original: Forward) -> Forward:
        def forward(x: Any) -> Any:
            if not site.states.accepts(x):
                return original(x)
            return site.states.write(x, site.attend(*site.project(site.states.read(x), x)))

        return forward

    return make


def windowed(attention: Any) -> Any:
    """Makes a windowed self-attention that computes inside the windows only, without a mask over all pairs."""

    def make(original: Forward) -> Forward:
        from fastsam3d.modules.sparse_tensor import SparseIndex
        from fastsam3d.modules.windowed_attention import attend_in_windows

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
    """Tells whether a sparse attention module keeps windows and objects apart by masks over all pairs of tokens.

    So does the `sdpa` back end, which the pipeline takes on all cards but a few (docs/facts.md, section S8). The choice
    is made once, at import, in the modules of the functions that the attention calls.
    """
    names = getattr(type(attention).forward, "__globals__", {})
    back_ends = {getattr(f, "__globals__", {}).get("ATTN") for f in names.values() if callable(f)}
    return "sdpa" in back_ends


def _attach(target: PipelineTarget) -> None:
    for site in target.host.full_attentions():
        if builds_dense_masks(site.attention):
            target.patches.replace(site.attention, "forward", unmasked(site))
    for attention in target.host.windowed_attentions():
        if builds_dense_masks(attention):
            target.patches.replace(attention, "forward", windowed(attention))


register_saving(
    ExactSaving(
        "maskless_attention",
        "Attention inside windows and objects instead of masks over all pairs. Faster; no cost.",
        Nesting.MODULES,
        sites=("full_attentions", "windowed_attentions"),
        attach=_attach,
    )
)
