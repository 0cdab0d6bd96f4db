"""Sites of the native networks: the modules that techniques and savings act on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from fastsam3d.diffusion.hosts.shared.wrappers import is_compiled, owner_of
from fastsam3d.diffusion.sites import StreamBlockSite, TimeSite
from fastsam3d.diffusion.vocabulary import SHAPE, SPARSE_STRUCTURE, STRUCTURED_LATENT
from fastsam3d.errors import UserError

TIME_SCALE = 1000.0
"""The networks see time multiplied by this."""
OUTSIDE_SAMPLING = {
    "dense_convolutions": ("ss_decoder",),
    "voxel_decoders": ("slat_decoder_mesh", "slat_decoder_gs"),
    "picture_encoders": ("ss_condition_embedder", "slat_condition_embedder"),
}
"""Sites in networks that are not sampled, and the networks that have them."""


def refuse_wrapped(stage: str, generator: Any) -> None:
    """Refuses a sampled network in a wrapper, compiled or not: what is attached inside would not be called.

    A wrapper around the whole generator is looked through, because `sample` is no part of what it changes.

    Raises:
        UserError: with the part and the way out.
    """
    guidance = generator.reverse_fn
    backbone = guidance.backbone
    parts: dict[str, tuple[Any, ...]] = {
        "reverse_fn": (guidance, "conditional"),
        "reverse_fn.backbone": (backbone, "latent_shapes", "make_index"),
    }
    parts |= {f"reverse_fn.backbone.blocks.{i}": (block,) for i, block in enumerate(getattr(backbone, "blocks", ()))}
    for name, (part, *methods) in parts.items():
        known = [method for method in methods if hasattr(part, method)]
        if is_compiled(part) or any(owner_of(part, method) is not part for method in known):
            what = "compiled" if is_compiled(part) else f"wrapped in a {type(part).__name__}"
            raise UserError(
                f"{name} of the {stage} generator is {what}, and what is attached inside would not be called: put the "
                "network itself back (of a compiled one `_orig_mod`) while the pipeline is accelerated."
            )


def time_sites(generator: Any, kind: str) -> list[TimeSite]:
    """Modulation layers of the network of a kind of stage. Their input is the embedded time."""
    backbone: Any = generator.reverse_fn.backbone

    def embedded(times: Tensor) -> Tensor:
        if kind == SPARSE_STRUCTURE:
            sizes = generator.evaluation_kwargs(times)["d"]
            return backbone.t_embedder(TIME_SCALE * times) + backbone.d_embedder(sizes)
        return backbone.t_embedder(TIME_SCALE * times).to(backbone.dtype)

    sites = [TimeSite(block.adaLN_modulation, embedded) for block in backbone.blocks]
    if kind == STRUCTURED_LATENT:
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
    """(transformer, kind of stage, "image" or "mask") of every picture encoder."""
    found = []
    for kind, name in ((SPARSE_STRUCTURE, "ss"), (STRUCTURED_LATENT, "slat")):
        embedder: Any = condition_embedders.get(f"{name}_condition_embedder")
        backbones = [m.backbone for m in getattr(embedder, "module_list", ()) if hasattr(m, "backbone")]
        found += [(backbone, kind, sees) for backbone, sees in zip(backbones, ("image", "mask"), strict=False)]
    return found


def stream_block_site(block: Any) -> StreamBlockSite:
    """A block of the first stage and its parts."""
    from fastsam3d.modules.attention import attend
    from fastsam3d.sam3d.models.sparse_structure_generator import POSE_STREAM

    attention = block.self_attn

    def attend_and_project(stream: str, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attention.to_out[stream](attend(q, k, v))

    return StreamBlockSite(block, attention, SHAPE, POSE_STREAM, attention.project, attend_and_project)
