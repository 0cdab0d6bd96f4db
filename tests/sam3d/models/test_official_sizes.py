"""Every network at official size, on the meta device: tensor and parameter counts of the official checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from fastsam3d.sam3d.models.build import build_condition_embedders, build_models
from fastsam3d.sam3d.models.config import ModelConfig, load_model_config

CONFIGS = Path(__file__).parents[3] / "configs" / "model"


@pytest.fixture(scope="module")
def config() -> ModelConfig:
    return load_model_config(CONFIGS / "sam3d.yaml")


@pytest.fixture(scope="module")
def networks(config: ModelConfig) -> dict[str, nn.Module]:
    with torch.device("meta"):
        return {**dict(build_models(config).items()), **build_condition_embedders(config)}


COUNTS = [
    ("ss_generator", 945, 959_962_133),
    ("ss_condition_embedder", 722, 634_485_760),
    ("slat_generator", 526, 600_432_520),
    ("slat_condition_embedder", 699, 626_054_144),
    ("ss_decoder", 74, None),
    ("slat_decoder_mesh", 120, None),
    ("slat_decoder_gs", 101, None),
]


@pytest.mark.parametrize(("name", "tensors", "parameters"), COUNTS)
def test_counts(networks: dict[str, nn.Module], name: str, tensors: int, parameters: int | None) -> None:
    network = networks[name]
    assert len(network.state_dict()) == tensors
    if parameters is not None:
        assert sum(p.numel() for p in network.parameters()) == parameters


def _shapes(network: nn.Module, prefix: str = "") -> Callable[[str], tuple[int, ...]]:
    state = network.state_dict()
    return lambda key: tuple(state[prefix + key].shape)


def test_ss_generator_keys(networks: dict[str, nn.Module]) -> None:
    shape = _shapes(networks["ss_generator"], "reverse_fn.backbone.")
    for stream in ("shape", "6drotation_normalized"):
        assert shape(f"blocks.23.norm2.{stream}.weight") == (1024,)
        assert shape(f"blocks.0.self_attn.to_qkv.{stream}.weight") == (3072, 1024)
        assert shape(f"blocks.0.self_attn.q_rms_norm.{stream}.gamma") == (16, 64)
        assert shape(f"blocks.0.self_attn.to_out.{stream}.bias") == (1024,)
        assert shape(f"blocks.0.cross_attn.{stream}.to_q.weight") == (1024, 1024)
        assert shape(f"blocks.0.cross_attn.{stream}.to_kv.weight") == (2048, 1024)
        assert shape(f"blocks.0.mlp.{stream}.mlp.0.weight") == (4096, 1024)
        assert shape(f"blocks.0.mlp.{stream}.mlp.2.weight") == (1024, 4096)
    assert shape("blocks.0.adaLN_modulation.1.weight") == (6144, 1024)
    assert shape("t_embedder.mlp.0.weight") == (1024, 256)
    assert shape("d_embedder.mlp.2.bias") == (1024,)
    channels = {"6drotation_normalized": 6, "scale": 3, "shape": 8, "translation": 3, "translation_scale": 1}
    for name, count in channels.items():
        assert shape(f"latent_mapping.{name}.input_layer.weight") == (1024, count)
        assert shape(f"latent_mapping.{name}.out_layer.weight") == (count, 1024)
        assert shape(f"latent_mapping.{name}.pos_emb") == ((4096 if name == "shape" else 1), 1024)


def test_condition_embedder_keys(networks: dict[str, nn.Module]) -> None:
    shape = _shapes(networks["ss_condition_embedder"])
    assert shape("idx_emb") == (3, 1024)
    for index in (0, 1):
        backbone = f"module_list.{index}.backbone."
        assert shape(backbone + "pos_embed") == (1, 1370, 1024)
        assert shape(backbone + "register_tokens") == (1, 4, 1024)
        assert shape(backbone + "mask_token") == (1, 1024)
        assert shape(backbone + "patch_embed.proj.weight") == (1024, 3, 14, 14)
        assert shape(backbone + "blocks.23.attn.qkv.weight") == (3072, 1024)
        assert shape(backbone + "blocks.23.ls2.gamma") == (1024,)
        assert shape(backbone + "blocks.0.mlp.fc1.weight") == (4096, 1024)
    assert shape("module_list.2.pos_embed") == (1, 512, 32, 32)
    assert shape("module_list.2.pos_embed_window") == (1, 65, 512)
    assert shape("module_list.2.cls_token") == (1, 1, 512)
    assert shape("module_list.2.invalid_xyz_token") == (512,)
    assert shape("module_list.2.point_proj.weight") == (512, 3)
    assert shape("module_list.2.blocks.0.mlp.fc1.weight") == (1024, 512)
    for index, channels in enumerate((1024, 1024, 512)):
        assert shape(f"projection_nets.{index}.0.weight") == (channels,)
        assert shape(f"projection_nets.{index}.1.w1.weight") == (2816, channels)
        assert shape(f"projection_nets.{index}.1.w2.weight") == (1024, 2816)


def test_ss_decoder_keys(networks: dict[str, nn.Module]) -> None:
    shape = _shapes(networks["ss_decoder"])
    assert shape("input_layer.weight") == (512, 8, 3, 3, 3)
    assert shape("middle_block.1.conv2.weight") == (512, 512, 3, 3, 3)
    assert shape("blocks.2.conv.weight") == (1024, 512, 3, 3, 3)
    assert shape("blocks.5.conv.weight") == (256, 128, 3, 3, 3)
    assert shape("blocks.7.norm1.weight") == (32,)
    assert shape("out_layer.0.weight") == (32,)
    assert shape("out_layer.2.weight") == (1, 32, 3, 3, 3)


def test_condition_token_counts(networks: dict[str, nn.Module]) -> None:
    def inputs(channels: int) -> torch.Tensor:
        return torch.empty(1, channels, 518, 518, device="meta")

    images = {"image": inputs(3), "rgb_image": inputs(3), "mask": inputs(1), "rgb_image_mask": inputs(1)}
    points = {"pointmap": inputs(3), "rgb_pointmap": inputs(3)}
    assert networks["ss_condition_embedder"](**images, **points).shape == (1, 7528, 1024)
    assert networks["slat_condition_embedder"](**images).shape == (1, 5496, 1024)
