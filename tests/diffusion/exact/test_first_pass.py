"""The unconditional pass of the first step, kept between objects: the same result, one pass less, counted."""

from __future__ import annotations

import pytest
import torch
from host_stand_ins.trellis import TrellisImageTo3DPipeline
from host_stand_ins.trellis2 import Pixal3DImageTo3DPipeline, Trellis2ImageTo3DPipeline
from PIL import Image
from torch import nn
from trellis2_checks import assert_same, run, seeded, snapshot

from fastsam3d.acceleration.handle import accelerate
from fastsam3d.diffusion.exact.between_runs.first_pass import FirstPass
from fastsam3d.diffusion.hosts.trellis2.costs import sizes_of
from fastsam3d.diffusion.operations import sampling_flops, unconditional_flops
from fastsam3d.diffusion.passes import Passes
from fastsam3d.diffusion.sites import CONDITIONAL, UNCONDITIONAL, EvaluationState, NetworkSite

ALONE = {"exact.first_pass": True}
RED, BLUE = (Image.new("RGB", (16, 16), colour) for colour in ((200, 100, 50), (20, 60, 200)))


def counted_passes(network):
    """A list that grows with every pass through the network's first block."""
    passes = []
    network.blocks[0].register_forward_pre_hook(lambda *_: passes.append(1))
    return passes


@pytest.mark.parametrize("kind", [Trellis2ImageTo3DPipeline, Pixal3DImageTo3DPipeline])
def test_another_picture_with_the_same_seed_spares_one_pass(kind):
    pipeline = seeded(kind)
    plain = {picture: run(pipeline, image, "512") for picture, image in (("red", RED), ("blue", BLUE))}
    before = snapshot(pipeline)
    passes = counted_passes(pipeline.models["sparse_structure_flow_model"])
    with accelerate(pipeline, "off", **ALONE) as acceleration:
        for picture, image, expected in (("red", RED, 22), ("blue", BLUE, 21), ("red", RED, 21)):
            passes.clear()
            assert_same(run(pipeline, image, "512"), plain[picture])
            assert len(passes) == expected
        assert acceleration.report().details["first_pass.sparse_structure"] == {"kept_passes": 2}
        passes.clear()
        run(pipeline, RED, "512", seed=2)
        assert len(passes) == 22
        acceleration.reset_report()
        assert acceleration.report().details["first_pass.sparse_structure"] == {"kept_passes": 0}
    assert snapshot(pipeline) == before


def test_what_it_spares_is_booked_as_exact():
    pipeline = seeded(Trellis2ImageTo3DPipeline)
    network = pipeline.models["sparse_structure_flow_model"]
    parts = sizes_of(network, network.blocks[0].cross_attn).one_pass(64, 4)
    with accelerate(pipeline, "exact") as acceleration:
        run(pipeline, RED, "512")
        first = acceleration.report().network_flops["sparse_structure"]
        acceleration.reset_report()
        run(pipeline, BLUE, "512")
        report = acceleration.report()
    second = report.network_flops["sparse_structure"]
    # No cross-attention, as the condition is zero; modulation is booked by the steps of the run.
    spared = parts.tokens + parts.rest - parts.modulation - parts.prefix_tokens
    assert first.plain == second.plain == 22 * parts.total
    assert first.computed - second.computed == pytest.approx(spared)
    assert report.exact_flops["first_pass"] == pytest.approx(spared)
    assert second.saved_approximate == pytest.approx(0, abs=1)
    assert unconditional_flops(parts) == sampling_flops(parts, Passes.full(0, 1)) == parts.total


def test_a_run_that_breaks_off_books_nothing():
    pipeline = seeded(Trellis2ImageTo3DPipeline)
    with accelerate(pipeline, "exact") as acceleration:
        run(pipeline, RED, "512", steps=3)
        acceleration.reset_report()
        handle = pipeline.models["shape_slat_flow_model_512"].register_forward_pre_hook(lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(pipeline, RED, "512", steps=3)
        handle.remove()
        acceleration.reset_report()
        run(pipeline, RED, "512", steps=3, seed=5)
        assert "first_pass" not in acceleration.report().exact_flops


def test_it_rests_where_a_technique_works_inside_the_network():
    pipeline = seeded(Trellis2ImageTo3DPipeline)
    with accelerate(pipeline, "first_block_cache", **ALONE) as acceleration:
        run(pipeline, RED, "512", steps=3)
        assert "first_pass.sparse_structure" not in acceleration.report().details


@pytest.mark.parametrize("low_vram", [True, False])
def test_changed_weights_are_seen(low_vram):
    pipeline = seeded(Trellis2ImageTo3DPipeline)
    pipeline.low_vram = low_vram
    network = pipeline.models["sparse_structure_flow_model"]
    with accelerate(pipeline, "off", **ALONE):
        run(pipeline, RED, "512", steps=3)
        with torch.no_grad():
            network.out_layer.weight.mul_(1.5)
        changed = run(pipeline, RED, "512", steps=3)
    assert_same(run(pipeline, RED, "512", steps=3), changed)


def test_trellis_has_it_too():
    pipeline = seeded(TrellisImageTo3DPipeline)
    plain = [pipeline.run(image, seed=1)["mesh"][0].vertices for image in (RED, BLUE)]
    with accelerate(pipeline, "off", **ALONE) as acceleration:
        results = [pipeline.run(image, seed=1)["mesh"][0].vertices for image in (RED, BLUE)]
        assert acceleration.report().details["first_pass.sparse_structure"] == {"kept_passes": 1}
    assert all(torch.equal(a, b) for a, b in zip(results, plain, strict=True))


class Network(nn.Module):
    """Counts its passes; its velocity is its one weight times the state."""

    def __init__(self):
        super().__init__()
        self.weight, self.passes = nn.Parameter(torch.tensor(2.0), requires_grad=False), 0

    def forward(self, x, t, condition):
        self.passes += 1
        return self.weight * x


def first_step(branch=UNCONDITIONAL, **changes):
    """State of an evaluation at the first step."""
    values = {"running": True, "times": (0.0, 0.5), "time": 0.0, "branch": branch, "condition": torch.zeros(1, 2, 3)}
    return EvaluationState(**(values | changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"branch": CONDITIONAL},
        {"time": 0.5},
        {"times": ()},
        {"zero_condition": False},
        {"tokens": torch.tensor([0])},
        {"subset": torch.tensor([0])},
        {"condition": None},
    ],
    ids=str,
)
def test_other_passes_always_run(changes):
    network, spared = Network(), []
    forward = FirstPass(NetworkSite(network), first_step(**changes), lambda: spared.append(1)).wrap(network.forward)
    for _ in range(2):
        forward(torch.ones(1, 4), torch.tensor([1000.0]), torch.zeros(1, 2, 3))
    assert (network.passes, spared) == (2, [])


def test_what_callers_write_to_does_not_reach_the_kept_velocity():
    network, spared = Network(), []
    first = FirstPass(NetworkSite(network), first_step(), lambda: spared.append(1))
    forward, t, condition = first.wrap(network.forward), torch.tensor([1000.0]), torch.zeros(1, 2, 3)
    noise = torch.ones(1, 4)
    forward(noise, t, condition).zero_()
    noise.zero_()
    for _ in range(2):
        result = forward(torch.ones(1, 4), t, condition)
        assert torch.equal(result, torch.full((1, 4), 2.0))
        result.zero_()
    assert (network.passes, len(spared), first.count) == (1, 2, 2)
    forward(torch.ones(1, 4), t, torch.zeros(1, 5, 3))  # a condition of another length
    forward(torch.ones(1, 4).double(), t, condition)
    assert network.passes == 3
    first.release()
    forward(torch.ones(1, 4), t, condition)
    assert network.passes == 4
