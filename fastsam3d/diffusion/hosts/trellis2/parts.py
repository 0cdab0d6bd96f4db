"""Attributes and signatures that the host of TRELLIS.2 expects, as a table that a test compares with the pipeline.

Known versions: TRELLIS.2 at commit 5565d24 and Pixal3D of 2026, which has the same names.
"""

from __future__ import annotations

from collections.abc import Mapping

from fastsam3d.diffusion.hosts.shared.expectations import Expected

_EVERY_RUN = "sampling"
_ATTENTION = "exact savings and token carving"
_SAMPLE = ("model", "noise", "cond", "neg_cond", "steps", "rescale_t")


def trellis2_parts(
    networks: Mapping[str, str], samplers: Mapping[str, str], has_structure: bool
) -> tuple[Expected, ...]:
    """Parts of a pipeline with these stages.

    Args:
        networks, samplers: names of network and sampler by stage.
        has_structure: whether the pipeline samples voxels; one that only textures a mesh does not.
    """
    parts: list[Expected] = []
    for sampler in dict.fromkeys(samplers.values()):
        parts += [
            Expected(f"{sampler}.sample", _EVERY_RUN, _SAMPLE),
            Expected(f"{sampler}._inference_model", _EVERY_RUN, ("model", "x_t", "t", "cond")),
        ]
    for network in networks.values():
        block = f"models.{network}.blocks.0"
        parts += [Expected(f"models.{network}.blocks", _EVERY_RUN)]
        parts += [
            Expected(f"{block}.{part}", _ATTENTION, optional=True)
            for part in ("self_attn.to_qkv", "self_attn.to_out", "self_attn.num_heads", "self_attn.qk_rms_norm")
        ]
        parts.append(Expected(f"{block}.cross_attn", _ATTENTION, optional=True))
    if has_structure:
        parts += [
            Expected("models.sparse_structure_decoder", _EVERY_RUN),
            Expected("sample_sparse_structure", _EVERY_RUN, ("cond", "resolution", "num_samples", "sampler_params")),
            Expected("sample_shape_slat", _EVERY_RUN, ("cond", "flow_model", "coords", "sampler_params")),
            Expected("decode_latent", "putting merged voxels back", optional=True),
            Expected("models.shape_slat_decoder.upsample", "coordinates alone", ("x", "upsample_times"), optional=True),
        ]
    parts.append(Expected("run", _EVERY_RUN))
    return tuple(parts)
