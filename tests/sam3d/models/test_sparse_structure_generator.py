"""Who attends to whom, what the unconditional pass equals, and how decoder and tokens fit together."""

from __future__ import annotations

import pytest
import torch

from fastsam3d.modules.attention import CrossAttention
from fastsam3d.modules.layers import MultiHeadRMSNorm, grid_positions, sinusoidal_position_embedding
from fastsam3d.sam3d.models.sparse_structure_decoder import SparseStructureDecoder, grid_to_tokens, pixel_shuffle_3d
from fastsam3d.sam3d.models.sparse_structure_generator import SHAPE, SparseStructureGenerator


@pytest.fixture
def network() -> SparseStructureGenerator:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SparseStructureGenerator(2, 4, 32, 2, 2, cond_channels=16).eval()


def _state(network: SparseStructureGenerator, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in network.latent_shapes().items()}


@torch.no_grad()
def test_shape_never_sees_layout_but_layout_sees_shape(network: SparseStructureGenerator) -> None:
    cond, time = torch.randn(1, 5, 16, generator=torch.Generator().manual_seed(1)), torch.tensor([300.0])
    state, other = _state(network, 2), _state(network, 3)
    out = network(state, time, cond)
    other_layout = network({**other, SHAPE: state[SHAPE]}, time, cond)
    other_shape = network({**state, SHAPE: other[SHAPE]}, time, cond)
    assert torch.equal(out[SHAPE], other_layout[SHAPE])
    assert not torch.allclose(out["translation"], other_layout["translation"])
    assert not torch.allclose(out["translation"], other_shape["translation"])


@torch.no_grad()
def test_output_has_the_latents_names_and_shapes(network: SparseStructureGenerator) -> None:
    state = _state(network, 2)
    out = network(state, torch.tensor([0.0]), torch.zeros(1, 3, 16))
    assert {k: v.shape for k, v in out.items()} == {k: v.shape for k, v in state.items()}


@torch.no_grad()
def test_zero_step_size_is_still_embedded(network: SparseStructureGenerator) -> None:
    state, cond = _state(network, 2), torch.zeros(1, 3, 16)
    default = network(state, torch.tensor([0.0]), cond)
    zero = network(state, torch.tensor([0.0]), cond, d=torch.tensor([0.0]))
    forty = network(state, torch.tensor([0.0]), cond, d=torch.tensor([40.0]))
    assert torch.equal(default[SHAPE], zero[SHAPE])
    assert not torch.allclose(default[SHAPE], forty[SHAPE])


@torch.no_grad()
def test_unconditional_pass_is_a_zero_condition_and_one_zero_token_suffices(network: SparseStructureGenerator) -> None:
    state, cond = _state(network, 2), torch.randn(1, 7, 16, generator=torch.Generator().manual_seed(4))
    unconditional = network(state, torch.tensor([100.0]), cond, cfg=True)
    one_token = network(state, torch.tensor([100.0]), torch.zeros(1, 1, 16))
    for name in unconditional:
        torch.testing.assert_close(unconditional[name], one_token[name], atol=2e-6, rtol=0)


@torch.no_grad()
def test_cross_attention_to_zeros_is_a_constant() -> None:
    attention = CrossAttention(32, 16, 2)
    x = torch.randn(1, 6, 32, generator=torch.Generator().manual_seed(0))
    value = attention.to_kv.bias[32:]
    expected = attention.to_out.weight @ value + attention.to_out.bias
    torch.testing.assert_close(attention(x, torch.zeros(1, 9, 16)), expected.expand(1, 6, 32), atol=1e-6, rtol=0)


@torch.no_grad()
def test_one_context_serves_consecutive_samples() -> None:
    attention = CrossAttention(32, 16, 2)
    generator = torch.Generator().manual_seed(0)
    x, context = torch.randn(4, 6, 32, generator=generator), torch.randn(2, 5, 16, generator=generator)
    repeated = attention(x, context.repeat_interleave(2, dim=0))
    torch.testing.assert_close(attention(x, context), repeated)


def test_training_attention_equals_the_fused_kernel() -> None:
    attention = CrossAttention(32, 16, 2)
    generator = torch.Generator().manual_seed(0)
    x, context = torch.randn(1, 6, 32, generator=generator), torch.randn(1, 5, 16, generator=generator)
    with torch.no_grad():
        fused = attention(x, context)
    torch.testing.assert_close(attention(x, context).detach(), fused, atol=1e-6, rtol=1e-5)


def test_rms_norm_by_hand() -> None:
    norm = MultiHeadRMSNorm(4, 1)
    out = norm(torch.tensor([[[3.0, 4.0, 0.0, 0.0]]]))
    torch.testing.assert_close(out, torch.tensor([[[1.2, 1.6, 0.0, 0.0]]]))  # x / 5 * sqrt(4)


def test_position_embedding_layout() -> None:
    embedding = sinusoidal_position_embedding(torch.tensor([[1, 0, 0]]), 1024)[0]
    assert embedding.shape == (1024,)
    assert embedding[0] == pytest.approx(0.841470985)  # sin(1), first frequency of x
    assert embedding[170] == pytest.approx(0.540302306)  # cos(1)
    assert embedding[340] == 0 and embedding[510] == 1  # y = 0
    assert (embedding[1020:] == 0).all()  # 3 * 340 = 1020 channels are used
    assert grid_positions(16)[17 + 256].tolist() == [1, 1, 1]


def test_pixel_shuffle_offsets() -> None:
    x = torch.arange(8.0).reshape(1, 8, 1, 1, 1)
    out = pixel_shuffle_3d(x)[0, 0]
    assert out[0, 0, 0] == 0 and out[0, 0, 1] == 1 and out[0, 1, 0] == 2 and out[1, 0, 0] == 4


@pytest.mark.parametrize("patch", [1, 2])
def test_tokens_and_grid_are_inverse(patch: int) -> None:
    decoder = SparseStructureDecoder(8, (16, 8, 8), 1, 1, patch)
    grid = torch.randn(2, 8, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    tokens = grid_to_tokens(grid, patch)
    assert tokens.shape == (2, (4 // patch) ** 3, 8 * patch**3)
    assert torch.equal(decoder.tokens_to_grid(tokens), grid)
    with torch.no_grad():
        assert decoder(tokens).shape == (2, 1, 16, 16, 16)
