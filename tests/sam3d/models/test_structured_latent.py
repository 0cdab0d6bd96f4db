"""Structured-latent generator and decoders: official keys, masks as attention twins, batches, Gaussians."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from fastsam3d.meshes.gaussians import Gaussian, offset_perturbation
from fastsam3d.modules.layers import sinusoidal_position_embedding
from fastsam3d.modules.sparse_tensor import SparseIndex, SparseTensor
from fastsam3d.modules.windowed_attention import WindowedSelfAttention
from fastsam3d.sam3d.models.structured_latent_decoder import GaussianDecoder, MeshDecoder, group_count
from fastsam3d.sam3d.models.structured_latent_generator import SparseResBlock, StructuredLatentGenerator


def random_coords(count: int, side: int, seed: int = 0, batch: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    cells = torch.randperm(side**3, generator=generator)[:count].sort().values
    columns = [torch.full_like(cells, batch), cells // side**2, cells // side % side, cells % side]
    return torch.stack(columns, dim=1).int()


def small_generator() -> StructuredLatentGenerator:
    torch.manual_seed(0)
    network = StructuredLatentGenerator(16, 8, 24, 2, 2, 2.0, 12, (8,), 2)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return network.eval()


@pytest.fixture(scope="module")
def generator() -> StructuredLatentGenerator:
    return small_generator()


def test_generator_official_keys() -> None:
    with torch.device("meta"):
        state = StructuredLatentGenerator().state_dict()
    shapes = {k: tuple(v.shape) for k, v in state.items()}
    assert len(shapes) == 526
    assert sum(math.prod(s) for s in shapes.values()) == 600_432_520
    expected = {
        "input_layer.weight": (128, 8),
        "out_layer.weight": (8, 128),
        "input_blocks.0.norm1.weight": (128,),
        "input_blocks.0.conv1.conv.weight": (128, 3, 3, 3, 128),
        "input_blocks.0.emb_layers.1.weight": (256, 1024),
        "input_blocks.1.conv1.conv.weight": (1024, 3, 3, 3, 128),
        "input_blocks.1.conv2.conv.weight": (1024, 3, 3, 3, 1024),
        "input_blocks.1.skip_connection.weight": (1024, 128),
        "out_blocks.0.norm1.weight": (2048,),
        "out_blocks.0.conv1.conv.weight": (128, 3, 3, 3, 2048),
        "out_blocks.0.skip_connection.weight": (128, 2048),
        "out_blocks.1.norm1.weight": (256,),
        "out_blocks.1.conv1.conv.weight": (128, 3, 3, 3, 256),
        "out_blocks.1.conv2.conv.bias": (128,),
        "blocks.23.norm2.weight": (1024,),
        "blocks.0.self_attn.to_qkv.weight": (3072, 1024),
        "blocks.0.self_attn.q_rms_norm.gamma": (16, 64),
        "blocks.0.cross_attn.to_kv.weight": (2048, 1024),
        "blocks.0.mlp.mlp.0.weight": (4096, 1024),
        "blocks.0.adaLN_modulation.1.weight": (6144, 1024),
    }
    assert {k: shapes.get(k) for k in expected} == expected


def test_decoder_official_keys() -> None:
    with torch.device("meta"):
        mesh = {k: tuple(v.shape) for k, v in MeshDecoder().state_dict().items()}
    gaussians = {k: tuple(v.shape) for k, v in GaussianDecoder(model_channels=48, num_heads=2).state_dict().items()}
    assert len(mesh) == 120
    assert len(gaussians) == 101
    expected = {
        "input_layer.weight": (768, 8),
        "blocks.11.attn.to_qkv.weight": (2304, 768),
        "blocks.0.mlp.mlp.2.weight": (768, 3072),
        "upsample.0.act_layers.0.weight": (768,),
        "upsample.0.out_layers.0.conv.weight": (192, 3, 3, 3, 768),
        "upsample.0.out_layers.1.bias": (192,),
        "upsample.0.out_layers.3.conv.weight": (192, 3, 3, 3, 192),
        "upsample.0.skip_connection.conv.weight": (192, 1, 1, 1, 768),
        "upsample.1.out_layers.0.conv.weight": (96, 3, 3, 3, 192),
        "upsample.1.skip_connection.conv.weight": (96, 1, 1, 1, 192),
        "out_layer.weight": (101, 96),
    }
    assert {k: mesh.get(k) for k in expected} == expected
    assert gaussians["offset_perturbation"] == (32, 3)
    assert gaussians["out_layer.weight"] == (448, 48)


def test_zero_condition_flag(generator: StructuredLatentGenerator) -> None:
    coords = random_coords(30, 6)
    x, cond, t = torch.randn(1, 30, 8), torch.randn(1, 5, 12), torch.tensor(300.0)
    flagged = generator(x, t, cond, coords, cfg=True)
    assert flagged.shape == (1, 30, 8)
    assert flagged.dtype == torch.float32
    torch.testing.assert_close(flagged, generator(x, t[None], torch.zeros_like(cond), coords))
    assert not torch.allclose(flagged, generator(x, t, cond, coords), atol=1e-3)


def test_objects_of_a_batch_do_not_see_each_other(generator: StructuredLatentGenerator) -> None:
    first, second = random_coords(30, 6, 1, 0), random_coords(20, 6, 2, 1)
    x, cond = torch.randn(1, 50, 8), torch.randn(2, 5, 12)
    t = torch.tensor([100.0, 700.0])
    both = generator(x, t, cond, torch.cat([first, second]))
    alone = second * torch.tensor([0, 1, 1, 1], dtype=torch.int32)
    torch.testing.assert_close(both[:, :30], generator(x[:, :30], t[0], cond[:1], first), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(both[:, 30:], generator(x[:, 30:], t[1], cond[1:], alone), atol=1e-4, rtol=1e-4)


def test_order_of_voxels_is_kept(generator: StructuredLatentGenerator) -> None:
    coords, x, cond = random_coords(40, 6), torch.randn(1, 40, 8), torch.randn(1, 5, 12)
    order = torch.randperm(40)
    straight = generator(x, torch.tensor(500.0), cond, coords)
    shuffled = generator(x[:, order], torch.tensor(500.0), cond, coords[order])
    torch.testing.assert_close(shuffled, straight[:, order], atol=1e-4, rtol=1e-4)


def test_index_can_be_shared(generator: StructuredLatentGenerator) -> None:
    coords, x, cond = random_coords(40, 6), torch.randn(1, 40, 8), torch.randn(1, 5, 12)
    expected = generator(x, torch.tensor(500.0), cond, coords)
    index = SparseIndex(coords)
    generator.make_index = lambda _: index  # type: ignore[method-assign]
    try:
        assert torch.equal(generator(x, torch.tensor(500.0), cond, coords), expected)
        assert torch.equal(generator(x, torch.tensor(500.0), cond, coords), expected)
    finally:
        del generator.make_index


def test_res_block_up_follows_its_formula() -> None:
    torch.manual_seed(1)
    block = SparseResBlock(6, 4, 5, direction=1)
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    index = SparseIndex(random_coords(25, 4))
    pooling = index.pooling()
    feats, t_emb = torch.randn(len(pooling.index), 6), torch.randn(1, 5)
    out = block(SparseTensor(feats, pooling.index), t_emb, index)
    x = feats[pooling.inverse]
    h = F.silu(F.layer_norm(x, (6,), block.norm1.weight, block.norm1.bias, 1e-6))
    h = block.conv1(SparseTensor(h, index)).feats
    scale, shift = block.emb_layers(t_emb).chunk(2, dim=1)
    h = F.silu(F.layer_norm(h, (4,), eps=1e-6) * (1 + scale) + shift)
    expected = block.conv2(SparseTensor(h, index)).feats + block.skip_connection(x)
    torch.testing.assert_close(out.feats, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shift", [0, 2])
def test_windowed_attention_equals_masked_attention(shift: int) -> None:
    torch.manual_seed(2)
    coords = torch.cat([random_coords(90, 9, 1, 0), random_coords(60, 9, 2, 1)])
    attention = WindowedSelfAttention(8, 2, window=4, shift=shift)
    feats = torch.randn(150, 8)
    out = attention(SparseTensor(feats, SparseIndex(coords))).feats
    cells = torch.cat([coords[:, :1], (coords[:, 1:] + shift) // 4], dim=1)
    mask = (cells.unsqueeze(0) == cells.unsqueeze(1)).all(-1)
    q, k, v = attention.to_qkv(feats).reshape(150, 3, 2, 4).permute(1, 2, 0, 3)
    score = (q @ k.transpose(1, 2) / 2.0).masked_fill(~mask, -torch.inf)
    expected = attention.to_out((score.softmax(-1) @ v).transpose(0, 1).flatten(1))
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)


def test_mesh_decoder_block_follows_its_formula() -> None:
    torch.manual_seed(3)
    decoder = MeshDecoder(8, 8, 12, 1, 2, 4, (6,))
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    coords = random_coords(30, 5)
    latents = torch.randn(30, 8)
    output = decoder(latents, coords)
    assert output.feats.shape == (240, 101)
    assert decoder.mesh_resolution == 16
    trunk = decoder.blocks[0](
        SparseTensor(
            decoder.input_layer(latents) + sinusoidal_position_embedding(coords[:, 1:], 12),
            SparseIndex(coords),
        )
    ).feats
    block = decoder.upsample[0]
    fine = SparseIndex(coords).subdivision()
    norm = block.act_layers[0]
    h = F.silu(F.group_norm(trunk.t()[None], norm.num_groups, norm.weight, norm.bias)[0].t())
    h = block.out_layers[0](SparseTensor(h.repeat_interleave(8, 0), fine))
    h = block.out_layers[3](h.replace(F.silu(block.out_layers[1](h).feats)))
    expected = h.feats + block.skip_connection.conv.pointwise(trunk.repeat_interleave(8, 0))
    torch.testing.assert_close(output.feats, decoder.out_layer(expected), atol=1e-4, rtol=1e-4)


def test_half_precision_keeps_ends_in_full_precision() -> None:
    generator = StructuredLatentGenerator(16, 8, 24, 1, 2, 2.0, 12, (8,), 1, dtype=torch.bfloat16)
    assert generator.input_layer.weight.dtype == generator.out_layer.weight.dtype == torch.float32
    assert generator.blocks[0].norm2.weight.dtype == torch.float32
    assert generator.blocks[0].self_attn.to_qkv.weight.dtype == torch.bfloat16
    assert generator.input_blocks[0].conv1.conv.weight.dtype == torch.bfloat16
    coords = random_coords(20, 5)
    out = generator(torch.randn(1, 20, 8), torch.tensor(5.0), torch.randn(1, 3, 12), coords)
    assert out.dtype == torch.float32
    assert torch.isfinite(out).all()
    decoder = MeshDecoder(8, 8, 12, 2, 2, 4, (6,), dtype=torch.bfloat16)
    assert decoder.upsample[0].act_layers[0].weight.dtype == torch.float32
    assert decoder(torch.randn(20, 8), coords).feats.dtype == torch.float32


def test_group_count() -> None:
    assert [group_count(c) for c in (768, 192, 96, 48, 128)] == [32, 32, 32, 24, 32]


def test_gaussian_offsets_are_a_hammersley_set() -> None:
    offsets = torch.tanh(offset_perturbation(4, 1.5)) * 1.5 / 2 + 0.5
    expected = [[0, 0, 0], [0.25, 0.5, 1 / 3], [0.5, 0.25, 2 / 3], [0.75, 0.75, 1 / 9]]
    torch.testing.assert_close(offsets, torch.tensor(expected), atol=1e-6, rtol=1e-6)


def test_gaussian_decoder_channels() -> None:
    torch.manual_seed(4)
    decoder = GaussianDecoder(64, 8, 12, 1, 2, 4, gaussians=2)
    coords = torch.tensor([[0, 10, 20, 30]], dtype=torch.int32)
    decoder.out_layer.weight.data.zero_()
    decoder.out_layer.bias.data.copy_(torch.arange(28.0) / 10)
    (gaussian,) = decoder(torch.randn(1, 8), coords)
    assert len(gaussian) == 2
    offset = torch.tanh(torch.tensor([0.3, 0.4, 0.5]) + decoder.offset_perturbation[1]) * 0.75 / 64
    torch.testing.assert_close(gaussian.xyz[1], (torch.tensor([10.5, 20.5, 30.5]) / 64) + offset)
    torch.testing.assert_close(gaussian.features_dc[1, 0], torch.tensor([0.9, 1.0, 1.1]))
    torch.testing.assert_close(gaussian.scaling[0], torch.tensor([1.2, 1.3, 1.4]))
    torch.testing.assert_close(gaussian.rotation[1], torch.tensor([0.22, 0.23, 0.24, 0.25]))
    torch.testing.assert_close(gaussian.opacity[:, 0], torch.tensor([2.6, 2.7]))


def test_gaussian_activations_and_ply_fields() -> None:
    zero = Gaussian(
        torch.full((1, 3), 0.75),
        torch.zeros(1, 1, 3),
        torch.zeros(1, 3),
        torch.zeros(1, 4),
        torch.zeros(1, 1),
    )
    size = math.sqrt(0.004**2 + 0.0009**2)
    torch.testing.assert_close(zero.get_scaling, torch.full((1, 3), size))
    torch.testing.assert_close(zero.get_opacity, torch.tensor([[0.1]]))
    assert zero.get_rotation.tolist() == [[1, 0, 0, 0]]
    assert zero.get_xyz.tolist() == [[0.25, 0.25, 0.25]]
    fields = zero.ply_fields()
    assert list(fields) == (
        [
            "x",
            "y",
            "z",
            "nx",
            "ny",
            "nz",
            "f_dc_0",
            "f_dc_1",
            "f_dc_2",
            "opacity",
            "scale_0",
            "scale_1",
            "scale_2",
            "rot_0",
            "rot_1",
            "rot_2",
            "rot_3",
        ]
    )
    assert all(values.dtype == "float32" and values.shape == (1,) for values in fields.values())
    assert fields["scale_0"][0] == pytest.approx(math.log(size), abs=1e-5)
    assert fields["opacity"][0] == pytest.approx(math.log(0.1 / 0.9), abs=1e-5)
    torch.testing.assert_close(zero.with_scaling(torch.full((1, 3), 0.02)).get_scaling, torch.full((1, 3), 0.02))
