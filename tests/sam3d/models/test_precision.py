"""Weights stored in half precision, and the forms of windowed attention and tables that a GPU prefers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fastsam3d.modules.sparse_tensor import SparseIndex
from fastsam3d.modules.windowed_attention import attend_in_windows
from fastsam3d.sam3d.checkpoints.loading import load_pipeline, model_config
from fastsam3d.sam3d.models.build import EMBEDDERS, build_condition_embedders, build_models, build_networks
from fastsam3d.sam3d.models.precision import store_half

CPU = torch.device("cpu")


def test_networks_come_in_one_order_with_the_same_weights() -> None:
    config = model_config("mini")
    config = replace(config, ss_generator=replace(config.ss_generator, num_blocks=1))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        together = dict(build_networks(config))
        torch.manual_seed(0)
        apart = {**dict(build_models(config).items()), **build_condition_embedders(config)}
    assert list(together) == list(apart)
    for name, network in together.items():
        for key, value in network.state_dict().items():
            assert torch.equal(value, apart[name].state_dict()[key]), (name, key)


def test_half_weights_change_nothing_that_autocast_does_not() -> None:
    stored = load_pipeline("mini", precision="bfloat16")
    cast = load_pipeline("mini", precision="bfloat16", half_weights=False)
    generator = torch.Generator().manual_seed(0)
    backbone = stored.models["ss_generator"].reverse_fn.backbone
    x = {name: torch.randn(shape, generator=generator) for name, shape in backbone.latent_shapes().items()}
    condition = torch.randn(1, 20, 192, generator=generator)
    time = torch.tensor([300.0])
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        a = backbone(x, time, condition)
        b = cast.models["ss_generator"].reverse_fn.backbone(x, time, condition)
    for name in a:
        assert torch.equal(a[name], b[name]), name


def test_normalisations_stay_in_full_precision() -> None:
    pipeline = load_pipeline("mini", precision="float16")
    dtypes = {
        f"{network}.{name}": value.dtype
        for network, module in [*pipeline.models.items(), *pipeline.condition_embedders.items()]
        for name, value in module.state_dict().items()
    }
    assert dtypes["ss_generator.reverse_fn.backbone.blocks.0.mlp.shape.mlp.0.weight"] == torch.float16
    assert dtypes["ss_generator.reverse_fn.backbone.blocks.0.norm2.shape.weight"] == torch.float32
    assert dtypes["ss_generator.reverse_fn.backbone.blocks.0.self_attn.q_rms_norm.shape.gamma"] == torch.float32
    assert dtypes["slat_generator.reverse_fn.backbone.input_blocks.0.conv1.conv.weight"] == torch.float16
    assert dtypes["ss_condition_embedder.module_list.0.backbone.pos_embed"] == torch.float32
    # Outside autocast, and fp16 is no type to compute in on a CPU.
    assert {d for name, d in dtypes.items() if name.startswith("slat_decoder")} == {torch.float32}


@pytest.mark.parametrize("name", ["slat_decoder_mesh", *EMBEDDERS])
def test_decoders_become_half_on_a_gpu_only(name: str) -> None:
    network = dict(build_networks(model_config("mini")))[name]
    store_half(name, network, torch.bfloat16, torch.device("cuda"))
    dtypes = {value.dtype for value in network.state_dict().values()}
    assert dtypes == ({torch.float16, torch.float32} if "decoder" in name else {torch.bfloat16, torch.float32})


def shell(side: int = 20) -> torch.Tensor:
    axis = torch.arange(side)
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    distance = (grid + 0.5 - side / 2).norm(dim=1)
    chosen = grid[(distance - 7).abs() < 1]
    return torch.cat([torch.zeros(len(chosen), 1, dtype=torch.int64), chosen], dim=1)


@pytest.mark.parametrize("shift", [0, 4])
def test_packed_and_padded_windows_are_one_partition(shift: int) -> None:
    coords = shell()
    index = SparseIndex(coords)
    packed = index.packed_windows(8, shift)
    assert torch.equal(packed.order[packed.restore], torch.arange(len(coords)))
    sizes = (packed.offsets[1:] - packed.offsets[:-1]).tolist()
    assert max(sizes) == packed.longest
    assert sum(sizes) == len(coords)
    qkv = torch.randn(len(coords), 3, 2, 4, generator=torch.Generator().manual_seed(0))
    padded = attend_in_windows(qkv, index.windows(8, shift))
    for begin, end in zip(packed.offsets[:-1].tolist(), packed.offsets[1:].tolist(), strict=True):
        rows = packed.order[begin:end]
        assert len({tuple(c) for c in ((coords[rows, 1:] + shift) // 8).tolist()}) == 1
        q, k, v = qkv[rows].permute(1, 2, 0, 3)
        expected = ((q @ k.mT) * 0.5).softmax(-1) @ v
        torch.testing.assert_close(padded[rows], expected.transpose(0, 1).flatten(1), rtol=1e-5, atol=1e-6)
