"""Hosts of other packages whose stages have names of their own, and more than two stages."""

from __future__ import annotations

import pytest
import torch
from host_checks import OPTIONS, STEPS, assert_same, distance, saved, snapshot
from host_stand_ins.sam3d_objects import InferencePipelinePointMap
from host_stand_ins.trellis import ThreeStagePipeline, TrellisImageTo3DPipeline
from tiny_pipeline import tiny_pipeline

from fastsam3d.acceleration.handle import accelerate
from fastsam3d.diffusion import SPARSE_STRUCTURE, STRUCTURED_LATENT, register_host
from fastsam3d.diffusion.hosts import recognised, remove_host
from fastsam3d.diffusion.hosts.native.host import NativeHost
from fastsam3d.diffusion.hosts.sam3d_objects.host import Sam3dObjectsHost
from fastsam3d.diffusion.hosts.trellis.host import TrellisHost
from fastsam3d.errors import UserError

TWO = {"coarse": SPARSE_STRUCTURE, "fine": STRUCTURED_LATENT}


class RenamedNative(NativeHost):
    stages = TWO
    generators = {"coarse": "ss_generator", "fine": "slat_generator"}  # noqa: RUF012


class RenamedSam3d(Sam3dObjectsHost):
    stages = TWO
    networks = {"coarse": "ss_generator", "fine": "slat_generator"}  # noqa: RUF012


class RenamedTrellis(TrellisHost):
    stages = TWO
    networks = {"coarse": "sparse_structure_flow_model", "fine": "slat_flow_model"}  # noqa: RUF012
    samplers = {"coarse": "sparse_structure_sampler", "fine": "slat_sampler"}  # noqa: RUF012


class ThreeStageTrellis(RenamedTrellis):
    stages = TWO | {"detail": STRUCTURED_LATENT}
    networks = RenamedTrellis.networks | {"detail": "detail_flow_model"}
    samplers = RenamedTrellis.samplers | {"detail": "slat_sampler"}


def run_trellis(pipeline, picture, cut_out):
    quick = {"steps": STEPS}
    return pipeline.run(cut_out, seed=1, sparse_structure_sampler_params=quick, slat_sampler_params=quick)


def run_sam3d(pipeline, picture, cut_out):
    return pipeline.run(*picture, seed=1, stage1_inference_steps=STEPS, stage2_inference_steps=STEPS)


CASES = {
    "sam3d": (RenamedSam3d, InferencePipelinePointMap, run_sam3d),
    "trellis": (RenamedTrellis, TrellisImageTo3DPipeline, run_trellis),
    "three stages": (ThreeStageTrellis, ThreeStagePipeline, run_trellis),
}


@pytest.fixture(params=CASES)
def case(request, picture, cut_out):
    host, make, run = CASES[request.param]
    register_host(host)
    torch.manual_seed(0)
    pipeline = make()
    yield host, pipeline, lambda: run(pipeline, picture, cut_out)
    remove_host(host)


SETTINGS = {
    **dict.fromkeys(("balanced", "fast", "paper"), OPTIONS),
    "first_block_cache": {"first_block_cache.threshold": 1.0, "first_block_cache.latent_threshold": 1.0},
}


@pytest.mark.parametrize("preset", ["off", "exact", "balanced", "fast", "paper", "first_block_cache", "fewer_steps"])
def test_stages_with_names_of_their_own(case, preset):
    host, pipeline, run = case
    assert type(recognised(pipeline)) is host
    plain, before = run(), snapshot(pipeline)
    with accelerate(pipeline, preset, **SETTINGS.get(preset, {})) as acceleration:
        result = run()
        report = acceleration.report()
    assert snapshot(pipeline) == before
    assert_same(run(), plain)
    assert list(report.stages) == list(host.stages)
    assert all(counts.runs == 1 and counts.evaluations > 0 for counts in report.stages.values())
    assert all(name in str(report) for name in host.stages)
    if preset == "off":
        assert_same(result, plain)
    elif preset == "exact":
        assert distance(result, plain) < 1e-4
    elif preset != "fewer_steps":
        assert all(saved(counts) for counts in report.stages.values())


def test_a_compiled_stage_is_named_in_the_refusal(case):
    host, pipeline, _ = case
    network = host(pipeline).network(list(host.stages)[-1])
    network.blocks[0] = torch.compile(network.blocks[0], backend="eager")
    with pytest.raises(UserError, match=f"{list(host.stages)[-1]} network is compiled"):
        accelerate(pipeline, "first_block_cache")


@pytest.mark.parametrize("preset", ["off", "exact", "balanced", "exact_layout"])
def test_native_stages_with_names_of_their_own(picture, preset):
    first, second = tiny_pipeline(), tiny_pipeline()
    options = OPTIONS if preset == "balanced" else {}
    with accelerate(first, preset, **options) as acceleration:
        expected, usual = first.run(*picture, seed=1), acceleration.report()
    register_host(RenamedNative)
    try:
        with accelerate(second, preset, **options) as acceleration:
            result, report = second.run(*picture, seed=1), acceleration.report()
    finally:
        remove_host(RenamedNative)
    assert torch.equal(result.feats, expected.feats)
    assert list(report.stages) == ["coarse", "fine"]
    assert list(report.stages.values()) == list(usual.stages.values())
    assert report.network_flops["coarse"] == usual.network_flops["sparse_structure"]
    assert "_between" not in vars(second) and not {"sample_slat", "run"} & set(vars(second))
