from __future__ import annotations

import pytest
import torch

from fastsam3d.acceleration.family import find_host
from fastsam3d.acceleration.patching import Patches
from fastsam3d.diffusion.partial.blocks import PartialBlocks
from fastsam3d.diffusion.sites import EvaluationState
from fastsam3d.modules.attention import CrossAttention, ModulatedTransformerCrossBlock


@pytest.mark.parametrize("stage", ["sparse_structure", "structured_latent"])
def test_zero_context_gives_a_constant(pipeline, stage):
    sites = find_host(pipeline).cross_attentions(stage)
    assert len(sites) == (4 if stage == "sparse_structure" else 2)  # two streams in the first stage
    generator = torch.Generator().manual_seed(0)
    for site in sites:
        x, context = torch.randn(1, 7, 24, generator=generator), torch.zeros(1, 11, 24)
        with torch.no_grad():
            assert (site.module(x, context) - site.constant(11)).abs().max() < 1e-6
            context = torch.randn(1, 11, 24, generator=generator)
            assert torch.equal(site.attend(x, *site.project_context(context)), site.module(x, context))


def test_a_large_layer_with_zero_context_gives_a_constant():
    torch.manual_seed(0)
    layer = CrossAttention(96, 64, 4)
    with torch.no_grad():
        out = layer(torch.randn(1, 50, 96), torch.zeros(1, 200, 64))
        assert (out - layer.to_out(layer.to_kv.bias[96:])).abs().max() < 1e-6


class Stack:
    """A stack of blocks with sites, as a host gives them."""

    def __init__(self, blocks):
        from fastsam3d.diffusion.hosts.shared.attention_sites import block_site

        generator = torch.Generator().manual_seed(0)
        self.blocks = [ModulatedTransformerCrossBlock(12, 12, 2) for _ in range(blocks)]
        for block in self.blocks:
            for parameter in block.parameters():
                parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
        self.sites = [block_site(b, own=b.self_attn.project) for b in self.blocks]
        self.time, self.condition = (torch.randn(*s, generator=generator) for s in ((1, 12), (1, 3, 12)))

    def __call__(self, h):
        with torch.no_grad():
            for block in self.blocks:
                h = block(h, self.time, self.condition)
        return h


@pytest.fixture(params=[1, 3])
def stack(request):
    return Stack(request.param)


def test_partial_evaluation_of_unchanged_input_is_exact(stack):
    h = torch.randn(1, 10, 12, generator=torch.Generator().manual_seed(1))
    full = stack(h)
    state, patches = EvaluationState(running=True, branch="conditional"), Patches()
    PartialBlocks(stack.sites, state).attach(patches)
    assert torch.allclose(stack(h), full, atol=1e-6)
    state.tokens = torch.tensor([1, 4, 7])
    assert torch.allclose(stack(h), full, atol=1e-5)
    patches.restore()
    assert torch.equal(stack(h), full)


def test_active_tokens_see_the_others_as_they_were(stack):
    generator = torch.Generator().manual_seed(1)
    h, moved = torch.randn(1, 10, 12, generator=generator), torch.randn(1, 10, 12, generator=generator)
    active = torch.tensor([0, 2, 5])
    mixed = h.clone()
    mixed[:, active] = moved[:, active]
    state, patches = EvaluationState(running=True, branch="conditional"), Patches()
    PartialBlocks(stack.sites, state).attach(patches)
    first = stack(h)
    state.tokens = active
    partial = stack(moved)
    patches.restore()
    rest = torch.tensor([1, 3, 4, 6, 7, 8, 9])
    # The others: their present input plus their kept change.
    assert torch.allclose(partial[:, rest], moved[:, rest] + (first - h)[:, rest], atol=1e-5)
    if len(stack.blocks) == 1:
        # In one block the kept keys are those of `h`, so active tokens give what a full pass over the mix gives.
        assert torch.allclose(partial[:, active], stack(mixed)[:, active], atol=1e-5)


def test_branches_have_stores_of_their_own(stack):
    generator = torch.Generator().manual_seed(1)
    a, b = torch.randn(1, 10, 12, generator=generator), torch.randn(1, 10, 12, generator=generator)
    state, patches = EvaluationState(running=True), Patches()
    partial = PartialBlocks(stack.sites, state)
    partial.attach(patches)
    expected = {}
    for branch, h in (("conditional", a), ("unconditional", b)):
        state.branch = branch
        expected[branch] = stack(h)
    state.tokens = torch.tensor([3])
    for branch, h in (("conditional", a), ("unconditional", b)):
        state.branch = branch
        assert torch.allclose(stack(h), expected[branch], atol=1e-5)
    # Other voxels, or a new run: nothing that was kept fits, and all tokens are computed.
    shorter = a[:, :6]
    assert torch.allclose(stack(shorter), plain(stack, patches, shorter), atol=1e-6)


def plain(stack, patches, h):
    patches.restore()
    return stack(h)


def test_outside_a_run_the_blocks_are_plain(stack):
    h = torch.randn(1, 10, 12, generator=torch.Generator().manual_seed(1))
    full, patches = stack(h), Patches()
    PartialBlocks(stack.sites, EvaluationState()).attach(patches)
    assert torch.equal(stack(h), full)


def test_cells_are_the_tokens_of_the_network(pipeline):
    host = find_host(pipeline)
    coords = torch.tensor([[0, 0, 0, 0], [0, 1, 1, 1], [0, 2, 0, 0], [0, 0, 0, 2]], dtype=torch.int32)
    trajectory = host._trajectory("structured_latent", (coords,))
    assert trajectory.cells.tolist() == [0, 0, 2, 1]  # lexicographic order of cells
    batch = coords.clone()
    batch[2:, 0] = 1
    assert host._trajectory("structured_latent", (batch,)).cells is None
