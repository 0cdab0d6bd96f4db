"""Evaluations of some latent tokens on both hosts, for a technique that they have never heard of."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from host_checks import distance, snapshot

from fastsam3d.acceleration.family import find_host
from fastsam3d.acceleration.handle import accelerate
from fastsam3d.acceleration.registry import Technique
from fastsam3d.diffusion.registry import REGISTRY, register
from fastsam3d.diffusion.vocabulary import STRUCTURED_LATENT, TechniqueConfig, setting
from fastsam3d.errors import UserError


@dataclass(frozen=True)
class HalfConfig(TechniqueConfig):
    enabled: bool = setting(False, "Switches the technique.")


class Half:
    """Every other token from step 2 on, at guidance edges as well."""

    def __init__(self, config, trajectory):
        self.tokens = torch.arange(0, int(trajectory.cells.max()) + 1, 2)

    def evaluate(self, x, step, evaluate):
        return evaluate(x) if step.index < 2 else evaluate(x, self.tokens)


@pytest.fixture(params=[("tokens",), ()], ids=["declared", "not declared"])
def half(request):
    register(Technique("half", HalfConfig, "evaluation", (STRUCTURED_LATENT,), Half, needs=request.param))
    yield request.param
    REGISTRY.remove("half")


@pytest.mark.parametrize("preset", ["off", "exact"])
@pytest.mark.parametrize("kind", ["sam3d", "trellis"])
def test_half_of_the_tokens_runs_where_declared_and_is_an_error_where_not(
    request, kind, preset, half, picture, cut_out
):
    pipeline = request.getfixturevalue(kind)
    run = (lambda: pipeline.run(*picture, seed=1)) if kind == "sam3d" else (lambda: pipeline.run(cut_out))
    plain, before = run(), snapshot(pipeline)
    blocks = find_host(pipeline).network(STRUCTURED_LATENT).blocks
    seen = [[] for _ in blocks]
    with accelerate(pipeline, preset, half=True) as acceleration:
        handles = [
            block.mlp.register_forward_pre_hook(lambda _, given, counts=counts: counts.append(len(given[0])))
            for block, counts in zip(blocks, seen, strict=True)
        ]
        if half:
            result = run()
        else:
            with pytest.raises(UserError, match=r"half calls evaluate\(x, tokens=\.\.\.\).*needs=\('tokens',\)"):
                run()
        counts = acceleration.report().stages[STRUCTURED_LATENT]
        for handle in handles:
            handle.remove()
    assert snapshot(pipeline) == before
    if half:
        assert counts.tokens_computed == sum(seen[0]) == sum(seen[-1])
        cells = seen[0][0]
        assert counts.tokens_possible == len(seen[0]) * cells
        assert set(seen[0]) == {cells, (cells + 1) // 2}
        assert 0 < distance(result, plain) < 0.5


@pytest.mark.parametrize("half", [("tokens",)], indirect=True)
@pytest.mark.parametrize("kind", ["sam3d", "trellis"])
def test_a_network_that_cannot_is_refused(request, kind, half):
    pipeline = request.getfixturevalue(kind)
    network = find_host(pipeline).network(STRUCTURED_LATENT)
    whole = network.blocks[0]
    network.blocks[0] = torch.compile(whole, backend="eager")
    before = snapshot(pipeline)
    with pytest.raises(UserError, match=r"half cannot be attached .*compiled.*half\.enabled=false"):
        accelerate(pipeline, "off", half=True)
    assert snapshot(pipeline) == before
    network.blocks[0], whole.self_attn.attn_mode = whole, "windowed"
    before = snapshot(pipeline)
    with pytest.raises(UserError, match=r"half cannot be attached .*one plain attention.*half\.enabled=false"):
        accelerate(pipeline, "off", half=True)
    assert snapshot(pipeline) == before


def test_blocks_are_reused_in_the_stage_that_is_not_compiled(trellis, cut_out):
    network = trellis.models["sparse_structure_flow_model"]
    network.blocks[0] = torch.compile(network.blocks[0], backend="eager")
    settings = {"enabled": True, "latent_threshold": 1.0}
    refusal = r"first_block_cache cannot .*its sparse_structure network is compiled.*stages=structured_latent\."
    with pytest.raises(UserError, match=refusal):
        accelerate(trellis, "off", first_block_cache=settings)
    settings["stages"] = STRUCTURED_LATENT
    with accelerate(trellis, "off", first_block_cache=settings) as acceleration:
        trellis.run(cut_out)
        assert acceleration.report().stages[STRUCTURED_LATENT].forecast > 0
