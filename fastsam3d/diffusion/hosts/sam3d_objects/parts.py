"""The parts of other people's pipelines that the hosts build on (docs/facts.md, sections S1, S4, S12, S13).

Known versions: SAM 3D Objects at commit cf06676, TRELLIS at commit 6b0d647.
"""

from __future__ import annotations

from fastsam3d.diffusion.hosts.shared.expectations import Expected

_EVERY_RUN = "sampling"
_ATTENTION = "exact savings and token carving"


def _sam3d_objects_parts() -> tuple[Expected, ...]:
    common = []
    for stage, extra in (("ss_generator", ("x_t", "t", "d")), ("slat_generator", ("x_t", "t"))):
        generator = f"models.{stage}"
        common += [
            Expected(f"{generator}.generate", _EVERY_RUN, ("x_shape", "x_device")),
            Expected(f"{generator}._generate_dynamics", _EVERY_RUN, extra),
            Expected(f"{generator}._solver", _EVERY_RUN),
            Expected(f"{generator}.inference_steps", _EVERY_RUN),
            Expected(f"{generator}.time_scale", _EVERY_RUN),
            Expected(f"{generator}.reversed_timestamp", _EVERY_RUN),
            Expected(f"{generator}.reverse_fn.strength", _EVERY_RUN),
            Expected(f"{generator}.reverse_fn.interval", _EVERY_RUN),
            Expected(f"{generator}.reverse_fn.unconditional_handling", _EVERY_RUN),
            Expected(f"{generator}.reverse_fn._make_unconditional_args", _EVERY_RUN),
            Expected(f"{generator}.reverse_fn.forward", _EVERY_RUN, ("x", "t", "args_cond")),
            Expected(f"{generator}.reverse_fn.inner_forward", _EVERY_RUN, ("x", "t", "is_cond", "strength")),
            Expected(f"{generator}.reverse_fn._cfg_step", _EVERY_RUN, ("y_cond", "y_uncond", "strength")),
            Expected(f"{generator}.reverse_fn.backbone.blocks", _EVERY_RUN),
            Expected(f"{generator}.reverse_fn.backbone.blocks.0.self_attn", _ATTENTION, optional=True),
            Expected(f"{generator}.reverse_fn.backbone.blocks.0.cross_attn", _ATTENTION, optional=True),
        ]
    cross = "models.{}.reverse_fn.backbone.blocks.0.cross_attn{}.{}"
    parts: tuple[str, ...] = ("to_q", "to_kv", "to_out", "num_heads", "qk_rms_norm")
    attention = [Expected(cross.format("ss_generator", ".shape", p), _ATTENTION, optional=True) for p in parts]
    attention += [Expected(cross.format("slat_generator", "", p), _ATTENTION, optional=True) for p in parts]
    network = "models.slat_generator.reverse_fn.backbone"
    parts = ("to_qkv", "to_out", "num_heads", "qk_rms_norm", "q_rms_norm", "k_rms_norm", "attn_mode")
    attention += [Expected(f"{network}.blocks.0.self_attn.{p}", _ATTENTION, optional=True) for p in parts]
    tables = ("input_blocks.0.conv1", "input_blocks.0.conv2", "out_blocks.0.conv1", "patch_size", "resolution")
    return (
        *common,
        Expected("models.ss_generator._prepare_t_and_d", _EVERY_RUN, ("steps",)),
        Expected("models.slat_generator._prepare_t", _EVERY_RUN, ("steps",)),
        Expected("models.ss_decoder", _EVERY_RUN),
        Expected("sample_sparse_structure", _EVERY_RUN, ("ss_input_dict", "inference_steps", "use_distillation")),
        Expected("sample_slat", _EVERY_RUN, ("slat_input", "coords", "inference_steps", "use_distillation")),
        Expected("decode_slat", _EVERY_RUN, ("slat", "formats")),
        Expected("run", _EVERY_RUN, ("image", "mask", "seed")),
        *attention,
        *(Expected(f"{network}.{part}", "voxel tables and token carving", optional=True) for part in tables),
        Expected("merge_image_and_mask", "token aggregation", ("image", "mask"), optional=True),
        Expected("models.slat_decoder_mesh.mesh_extractor.res", "sparse surface", optional=True),
        Expected("models.slat_decoder_mesh.mesh_extractor.feats_channels", "sparse surface", optional=True),
        Expected("models.slat_decoder_mesh.blocks.0.attn.window_size", "windowed attention", optional=True),
        Expected("models.slat_decoder_mesh.blocks.0.attn.shift_window", "windowed attention", optional=True),
        Expected("condition_embedders.ss_condition_embedder.embedder_list", "shared embeddings", optional=True),
        Expected("condition_embedders.slat_condition_embedder.embedder_list", "shared embeddings", optional=True),
        Expected("get_condition_input", "seconds of the report", optional=True),
        Expected("preprocess_image", "seconds of the report", optional=True),
        Expected("postprocess_slat_output", "seconds of the report", optional=True),
    )


SAM3D_OBJECTS_PARTS = _sam3d_objects_parts()
