"""TRELLIS's sampler combines the branches itself, by whatever formula."""

from __future__ import annotations

import pytest
import torch
from host_checks import OPTIONS, STEPS, assert_same, distance, saved, snapshot
from host_stand_ins.trellis import FlowEulerGuidanceIntervalSampler, RescaledGuidanceSampler

from fastsam3d.acceleration.handle import accelerate
from fastsam3d.diffusion.hosts.shared.flow_evaluations import evaluator
from fastsam3d.diffusion.sites import CONDITIONAL, UNCONDITIONAL, EvaluationState

INTERVALS = [(0.0, 1.0), (0.5, 1.0), (0.2, 0.7), (0.0, 0.4)]


def rescaled(pipeline, strength, rescale, interval):
    pipeline.sparse_structure_sampler = pipeline.slat_sampler = RescaledGuidanceSampler()
    changes = {"cfg_strength": strength, "cfg_rescale": rescale, "cfg_interval": interval, "steps": STEPS}
    for parameters in (pipeline.sparse_structure_sampler_params, pipeline.slat_sampler_params):
        parameters.update(changes)
    return pipeline


@pytest.mark.parametrize("interval", INTERVALS, ids=str)
@pytest.mark.parametrize("rescale", [0.0, 1.0])
@pytest.mark.parametrize("strength", [0, 1, 3])
def test_off_is_bit_identical_whatever_the_guidance_does(trellis, cut_out, strength, rescale, interval):
    rescaled(trellis, strength, rescale, interval)
    plain, before = trellis.run(cut_out), snapshot(trellis)
    with accelerate(trellis, "off") as acceleration:
        assert_same(trellis.run(cut_out), plain)
        report = acceleration.report()
    assert snapshot(trellis) == before
    times = [3 * u / (1 + 2 * u) for u in (1 - k / STEPS for k in range(STEPS))]
    both = sum(interval[0] <= t <= interval[1] for t in times) if strength == 3 else 0
    for stage in report.stages.values():
        assert (stage.conditional_computed, stage.unconditional_computed) == (STEPS, both)
        assert stage.forecast == 0


@pytest.mark.parametrize("preset", ["exact", "guidance_reuse", "balanced"])
def test_presets_run_with_rescaled_guidance(trellis, cut_out, preset):
    rescaled(trellis, 3, 1.0, (0.5, 1.0))
    plain, before = trellis.run(cut_out), snapshot(trellis)
    with accelerate(trellis, preset, **(OPTIONS if preset == "balanced" else {})) as acceleration:
        result = trellis.run(cut_out)
        counts = acceleration.report().stages["sparse_structure"]
    assert snapshot(trellis) == before
    if preset == "exact":
        assert counts.forecast == 0
        assert distance(result, plain) < 1e-4
    else:
        assert saved(counts)
        assert torch.isfinite(result["gaussian"][0]._xyz).all()


class Runner:
    def __init__(self):
        self.state = EvaluationState(running=True)


class Network:
    """Says `x + 1` for one condition and `x - 1` for the other, and remembers the branch and what it was given."""

    channels = 4

    def __init__(self, runner):
        self.runner, self.calls = runner, []

    def __call__(self, x, time, condition):
        self.calls.append((self.runner.state.branch, self.runner.state.condition, float(condition.mean())))
        return x + condition.mean()


def evaluation(batch=1, sampler=FlowEulerGuidanceIntervalSampler, **guidance):
    runner = Runner()
    network, x = Network(runner), torch.full((batch, 2, 2), 0.25)
    conditions = {"cond": torch.ones(1, 3, 4), "neg_cond": -torch.ones(1, 3, 4)}
    options = {"neg_cond": conditions["neg_cond"], "cfg_strength": 2.0, "cfg_interval": (0.0, 1.0), **guidance}
    call = (network, x, 0.5, conditions["cond"])
    return evaluator(sampler()._inference_model, runner, "shape", call, options), network, x, conditions


def test_delta_is_what_plain_guidance_adds():
    evaluate, network, x, conditions = evaluation()
    guided = evaluate({"shape": x})
    # c = -(0.25 + 1), u = -(0.25 - 1), w = 2: c + w (c - u) = -1.25 + 2 (-2)
    assert torch.equal(guided.conditional["shape"], torch.full_like(x, -1.25))
    assert torch.equal(guided.delta["shape"], torch.full_like(x, -4.0))
    assert torch.equal(guided.combined()["shape"], torch.full_like(x, -5.25))
    assert network.calls == [(CONDITIONAL, conditions["cond"], 1.0), (UNCONDITIONAL, conditions["neg_cond"], -1.0)]


def test_only_the_conditional_pass_runs_where_that_is_asked():
    evaluate, network, x, _ = evaluation()
    guided = evaluate({"shape": x}, conditional_only=True)
    assert torch.equal(guided.conditional["shape"], torch.full_like(x, -1.25))
    assert guided.delta is None and guided.guided is None
    assert [branch for branch, *_ in network.calls] == [CONDITIONAL]
    assert network.runner.state.branch is None


@pytest.mark.parametrize(("strength", "branch", "value"), [(1, CONDITIONAL, -1.25), (0, UNCONDITIONAL, 0.75)])
def test_guidance_that_rests_on_one_branch(strength, branch, value):
    evaluate, network, x, _ = evaluation(sampler=RescaledGuidanceSampler, cfg_strength=strength)
    guided = evaluate({"shape": x})
    assert [called for called, *_ in network.calls] == [branch]
    assert guided.delta is None
    assert torch.equal(guided.combined()["shape"], torch.full_like(x, value))


def test_branches_of_a_batch_are_told_apart():
    """The sampler repeats a single condition for every object; what keeps values still sees the pipeline's own."""
    evaluate, network, x, conditions = evaluation(batch=3)
    for _ in range(2):
        evaluate({"shape": x})
    assert [branch for branch, *_ in network.calls] == [CONDITIONAL, UNCONDITIONAL] * 2
    assert all(
        condition is conditions["cond" if branch == CONDITIONAL else "neg_cond"]
        for branch, condition, _ in network.calls
    )


def test_an_error_in_the_network_leaves_no_branch_behind():
    evaluate, network, x, _ = evaluation()
    network.calls = None
    with pytest.raises(AttributeError):
        evaluate({"shape": x})
    assert (network.runner.state.branch, network.runner.state.condition) == (None, None)
