"""Sites in the networks and decoders of TRELLIS.2 and Pixal3D."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fastsam3d.acceleration.patching import Patches
from fastsam3d.diffusion.hosts.shared.attention_sites import block_site, cross_attention_site
from fastsam3d.diffusion.hosts.shared.sparse_states import SPARSE
from fastsam3d.diffusion.sites import (
    BlockSite,
    CoordinatesSite,
    CrossAttentionSite,
    EvaluationState,
    Forward,
    HiddenStates,
    TableSite,
)

TABLES = "SubMConv3d"
"""Begin of the names under which convolutions keep neighbour tables in the cache of a sparse tensor."""
ZERO_ROWS = 16
"""Queries with which the constant for a condition of zeros is computed. Measured on a CPU in fp32: at 48 and at 1536
channels the result equals that of 4,096 queries bit by bit; at 1536 channels fewer than 16 rows give another sum."""
CHILDREN = 8
"""Voxels that an up-sampled voxel may have; as many channels are enough to carry its place along."""


def rotary_block_site(block: Any) -> BlockSite:
    """The site of a block on sparse tensors whose self-attention may turn queries and keys by their voxels' places."""
    plain = block_site(block, SPARSE)
    attention = block.self_attn
    if not getattr(attention, "use_rope", False):
        return plain

    def project(x: Tensor, h: Any) -> tuple[Tensor, Tensor, Tensor]:
        queries, keys, values = plain.project(x, h)
        # The phases are those of the voxels that `h` holds, and are kept in its cache.
        turned = attention.rope(h.replace(queries[0]), h.replace(keys[0]))
        return turned[0].feats[None], turned[1].feats[None], values

    return BlockSite(block, attention, project, plain.attend, SPARSE)


def inner_cross_attention(block: Any) -> Any:
    """The module that attends to the condition's tokens.

    Pixal3D adds a projection of the condition at each token's pixel around it.
    """
    return getattr(block.cross_attn, "cross_attn_block", block.cross_attn)


def cross_attention(block: Any, states: HiddenStates) -> CrossAttentionSite | None:
    """The site of a block's cross-attention; None if it does not have the known parts."""
    module = inner_cross_attention(block)
    if not hasattr(module, "to_kv"):
        return None
    site = cross_attention_site(module, states, ZERO_ROWS)
    return replace(site, projection=block.cross_attn.proj_linear) if is_projected(block) else site


def is_projected(block: Any) -> bool:
    """Tells whether a block adds a condition that is projected for each token."""
    return hasattr(block.cross_attn, "proj_linear")


def attach_chosen_projections(patches: Patches, block: Any, state: EvaluationState) -> None:
    """Gives a block that runs for some tokens the projected condition of these tokens."""

    def make(original: Forward) -> Forward:
        def forward(x: Any, context: Any, *args: Any, **kwargs: Any) -> Any:
            chosen, count = state.tokens, len(x.feats)

            def part(values: Any) -> Any:
                # What is asked for is not what runs where nothing is kept yet.
                if chosen is None or not hasattr(values, "feats") or len(values.feats) == count:
                    return values
                return SPARSE.write(values, values.feats.index_select(0, chosen)[None], chosen)

            if isinstance(context, Mapping):
                context = {name: part(values) for name, values in context.items()}
            elif isinstance(context, tuple):  # as the published networks hand it to their blocks
                context = tuple(part(values) for values in context)
            return original(x, context, *args, **kwargs)

        return forward

    patches.replace(block.cross_attn, "forward", make)


# --- decoders


def _convolutions(decoder: Any) -> list[Any]:
    parts = ("in_channels", "kernel_size", "dilation")
    return [m for m in decoder.modules() if all(hasattr(m, part) for part in parts) and not _is_dense(m)]


def _is_dense(module: Any) -> bool:
    return isinstance(module, torch.nn.modules.conv._ConvNd)


def _read_tables(x: Any) -> dict[str, Any]:
    kept = x.get_spatial_cache()
    return {name: table for name, table in kept.items() if name.startswith(TABLES)} if isinstance(kept, dict) else {}


def _write_tables(x: Any, tables: dict[str, Any]) -> None:
    for name, table in tables.items():
        x.register_spatial_cache(name, table)


def table_sites(decoder: Any) -> list[TableSite]:
    """The sparse convolutions of a decoder."""
    return [TableSite(convolution, _read_tables, _write_tables) for convolution in _convolutions(decoder)]


def coordinates_site(decoder: Any) -> CoordinatesSite | None:
    """The site of a decoder's `upsample`; None if it does not have the known parts."""
    blocks = [level[-1] for level in list(getattr(decoder, "blocks", ()))[:-1]]  # the last level goes no further up
    known = bool(blocks) and all(hasattr(block, "to_subdiv") and hasattr(block, "updown") for block in blocks)
    if not known or not hasattr(decoder, "upsample"):
        return None
    return CoordinatesSite(decoder, partial(_last_block, decoder), _subdivided)


def _last_block(decoder: Any, times: int) -> Any | None:
    """The block of which only the output coordinates are used, if a decoder goes up so many levels."""
    return decoder.blocks[times - 1][-1] if 0 < times < len(decoder.blocks) else None


def _subdivided(block: Any) -> Callable[[Any], Any]:
    """Runs the block without its convolutions, because the coordinates depend on its subdivisions only."""

    def forward(x: Any, *args: Any, **kwargs: Any) -> Any:
        subdivisions = block.to_subdiv(x)
        carried = x.replace(x.feats[:, :CHILDREN].contiguous())
        return block.updown(carried, subdivisions.replace(subdivisions.feats > 0)), subdivisions

    return forward
