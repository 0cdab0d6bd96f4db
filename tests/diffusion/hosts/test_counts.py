"""What a report says was computed is what hooks on the networks count."""

from __future__ import annotations

import pytest
from torch import nn

from fastsam3d.acceleration.family import find_host
from fastsam3d.acceleration.handle import accelerate
from fastsam3d.diffusion.stage_runner import StageRunner
from fastsam3d.diffusion.vocabulary import STAGES


def watched(pipeline):
    """Evaluations of each stage's network from now on."""
    calls = dict.fromkeys(STAGES, 0)

    def watch(stage):
        def called(*_):
            calls[stage] += 1

        find_host(pipeline).network(stage).register_forward_pre_hook(called)

    for stage in STAGES:
        watch(stage)
    return calls


@pytest.mark.parametrize("preset", ["balanced", "paper", "fast"])
@pytest.mark.parametrize("kind", ["sam3d", "trellis"])
def test_reported_evaluations_are_those_that_ran(request, kind, preset, picture, cut_out):
    pipeline = request.getfixturevalue(kind)
    calls = watched(pipeline)
    with accelerate(pipeline, preset) as acceleration:
        pipeline.run(*picture, seed=1) if kind == "sam3d" else pipeline.run(cut_out)
        report = acceleration.report()
    assert {stage: counts.evaluations for stage, counts in report.stages.items()} == calls
    assert all(calls.values())
    assert all(counts.forecast > 0 for counts in report.stages.values())


@pytest.mark.parametrize("kind", ["sam3d", "trellis"])
def test_onednn_finds_no_layer_there(request, kind):
    pipeline = request.getfixturevalue(kind)
    models = [model for model in pipeline.models.values() if model is not None]
    layers = [m for model in models for m in model.modules() if isinstance(m, nn.Conv3d | nn.Linear | nn.Sequential)]
    assert layers
    with accelerate(pipeline, "off", **{"exact.onednn": True}):
        assert not any("forward" in vars(layer) for layer in layers)


@pytest.mark.parametrize("kind", ["sam3d", "trellis"])
def test_multistep_brings_a_grid_of_its_own_with_a_step_on_the_guidance_edge(
    request, kind, picture, cut_out, monkeypatch
):
    pipeline = request.getfixturevalue(kind)
    seen = {}
    start = StageRunner.start

    def watched_start(runner, trajectory):
        seen[trajectory.stage] = trajectory
        start(runner, trajectory)

    monkeypatch.setattr(StageRunner, "start", watched_start)
    settings = {"enabled": True, "steps": 0.28, "rescale": 4.0, "guidance_every": 2}
    with accelerate(pipeline, "exact", multistep=settings, latent_multistep=settings) as acceleration:
        pipeline.run(*picture, seed=1) if kind == "sam3d" else pipeline.run(cut_out)
        report = acceleration.report()
    for stage, counts in report.stages.items():
        # 7 of 25 steps, the last of them from the edge on, which takes a bend of 6.
        times = seen[stage].times
        assert counts.conditional_computed == len(times) - 1 == 7
        assert min(abs(t - 0.5) for t in times) < 1e-6
        assert times[1] - times[0] < times[-1] - times[-2]
        assert counts.unconditional_computed == 4  # steps 0, 2 and 4, and on the edge
        assert counts.conditional_forecast == 0
