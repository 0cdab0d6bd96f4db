"""Where the parts of the native networks are that techniques work on, and how their results are put together."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from fastsam3d.diffusion.sites import BlockSite, CrossAttentionSite, StreamBlockSite, TimeSite
from fastsam3d.diffusion.vocabulary import SHAPE, SPARSE_STRUCTURE, STRUCTURED_LATENT

TIME_SCALE = 1000.0
"""The networks see time multiplied by this."""


def time_sites(generator: Any, stage: str) -> list[TimeSite]:
    """Modulation layers of a stage's network: what they are given is the embedded time."""
    backbone: Any = generator.reverse_fn.backbone

    def embedded(times: Tensor) -> Tensor:
        if stage == SPARSE_STRUCTURE:
            sizes = generator.evaluation_kwargs(times)["d"]
            return backbone.t_embedder(TIME_SCALE * times) + backbone.d_embedder(sizes)
        return backbone.t_embedder(TIME_SCALE * times).to(backbone.dtype)

    sites = [TimeSite(block.adaLN_modulation, embedded) for block in backbone.blocks]
    if stage == STRUCTURED_LATENT:
        levels = [*backbone.input_blocks, *backbone.out_blocks]
        return [*sites, *(TimeSite(level.emb_layers, embedded) for level in levels)]
    return sites


def repeated_convolutions(backbone: Any) -> list[Any]:
    """Sparse convolutions that run in every pass on the voxels, or cells, themselves."""
    return [
        module.conv
        for level in [*backbone.input_blocks, *backbone.out_blocks]
        for module in (level.conv1, level.conv2)
        # Copies of cells go through `apply_to_copies`, which multiplies each cell once already.
        if not (level.direction > 0 and module is level.conv1)
    ]


def feed_forwards(networks: Iterable[Any]) -> list[Any]:
    """The layers of every feed-forward of the networks."""
    from fastsam3d.modules.layers import FeedForward

    return [module.mlp for network in networks for module in network.modules() if isinstance(module, FeedForward)]


def picture_encoders(condition_embedders: Mapping[str, Any]) -> list[tuple[Any, str, str]]:
    """(transformer, stage, "image" or "mask") of every picture encoder."""
    found = []
    for stage, name in ((SPARSE_STRUCTURE, "ss"), (STRUCTURED_LATENT, "slat")):
        embedder: Any = condition_embedders.get(f"{name}_condition_embedder")
        backbones = [m.backbone for m in getattr(embedder, "module_list", ()) if hasattr(m, "backbone")]
        found += [(backbone, stage, kind) for backbone, kind in zip(backbones, ("image", "mask"), strict=False)]
    return found


def stream_block_site(block: Any) -> StreamBlockSite:
    """A block of the first stage and its parts."""
    from fastsam3d.modules.attention import attend
    from fastsam3d.sam3d.models.sparse_structure_generator import POSE_STREAM

    attention = block.self_attn

    def attend_and_project(stream: str, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attention.to_out[stream](attend(q, k, v))

    return StreamBlockSite(block, attention, SHAPE, POSE_STREAM, attention.project, attend_and_project)


def block_site(block: Any) -> BlockSite:
    """A block of the latent stage and its parts."""
    from fastsam3d.modules.attention import attend

    attention = block.self_attn

    def attend_and_project(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attention.to_out(attend(q, k, v))

    return BlockSite(block, attention, attention.project, attend_and_project)


def cross_attention_site(module: Any) -> CrossAttentionSite:
    """A cross-attention module and its parts."""
    from fastsam3d.modules.attention import attend

    def project_context(context: Tensor) -> tuple[Tensor, Tensor]:
        k, v = module.to_kv(context).unflatten(-1, (2, module.heads, -1)).unbind(dim=2)
        return k.contiguous(), v.contiguous()

    def attend_to(x: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return module.to_out(attend(module.to_q(x).unflatten(-1, (module.heads, -1)), k, v))

    def constant() -> Tensor:
        bias = module.to_kv.bias
        width = module.to_kv.out_features // 2
        values = module.to_kv.weight.new_zeros(width) if bias is None else bias[width:]
        return module.to_out(values[None, None])

    return CrossAttentionSite(module, project_context, attend_to, constant)


def to_fine(value: Any, lattice: Any) -> Any:
    """A decoded mesh or set of Gaussians, put back where and as large as it was before merging."""
    if hasattr(value, "vertices"):
        points = value.vertices
        if isinstance(points, Tensor):
            return dataclasses.replace(value, vertices=lattice.object_points_to_fine(points))
        fine = lattice.object_points_to_fine(torch.as_tensor(points))
        return dataclasses.replace(value, vertices=fine.numpy().astype(points.dtype))
    if hasattr(value, "xyz"):
        # Centres lie in the unit cube; standard deviations grow with the cells.
        moved = dataclasses.replace(value, xyz=lattice.object_points_to_fine(value.xyz - 0.5) + 0.5)
        return moved.with_scaling(value.get_scaling * lattice.factor)
    return value
