"""Attributes and signatures that the TRELLIS host expects, as a table that a test compares with the pipeline."""

from __future__ import annotations

from fastsam3d.diffusion.hosts.sam3d_objects.parts import _ATTENTION, _EVERY_RUN
from fastsam3d.diffusion.hosts.shared.expectations import Expected


def _trellis_parts() -> tuple[Expected, ...]:
    samplers = []
    for name in ("sparse_structure_sampler", "slat_sampler"):
        samplers += [
            Expected(f"{name}.sample", _EVERY_RUN, ("model", "noise", "cond", "neg_cond", "steps", "rescale_t")),
            Expected(f"{name}._inference_model", _EVERY_RUN, ("model", "x_t", "t", "cond")),
        ]
    attention = []
    for network in ("sparse_structure_flow_model", "slat_flow_model"):
        cross, own = f"models.{network}.blocks.0.cross_attn", f"models.{network}.blocks.0.self_attn"
        attention += [
            Expected(f"{cross}.{part}", _ATTENTION, optional=True)
            for part in ("to_q", "to_kv", "to_out", "num_heads", "qk_rms_norm")
        ]
        attention += [
            Expected(f"{own}.{part}", _ATTENTION, optional=True) for part in ("to_qkv", "to_out", "num_heads")
        ]
    tables = ("input_blocks.0.conv1", "input_blocks.0.conv2", "out_blocks.0.conv1", "patch_size", "resolution")
    return (
        *samplers,
        Expected("models.sparse_structure_flow_model.blocks", _EVERY_RUN),
        Expected("models.slat_flow_model.blocks", _EVERY_RUN),
        Expected("models.sparse_structure_decoder", _EVERY_RUN),
        Expected("sample_sparse_structure", _EVERY_RUN, ("cond", "num_samples", "sampler_params")),
        Expected("sample_slat", _EVERY_RUN, ("cond", "coords", "sampler_params")),
        Expected("decode_slat", _EVERY_RUN, ("slat", "formats")),
        Expected("run", _EVERY_RUN, ("image", "num_samples", "seed")),
        *attention,
        *(
            Expected(f"models.slat_flow_model.{part}", "voxel tables and token carving", optional=True)
            for part in tables
        ),
        Expected("get_cond", "token aggregation", ("image",), optional=True),
        Expected("models.image_cond_model", "shared embeddings", optional=True),
        Expected("models.slat_decoder_mesh.mesh_extractor.res", "sparse surface", optional=True),
        Expected("models.slat_decoder_mesh.mesh_extractor.feats_channels", "sparse surface", optional=True),
        Expected("preprocess_image", "seconds of the report", optional=True),
    )


TRELLIS_PARTS = _trellis_parts()
