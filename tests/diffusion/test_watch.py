"""Nothing is attached in vain without a word: wrapped networks, exchanged ones, and step counts nobody asks for."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import nn

from fastsam3d.acceleration.handle import accelerate
from fastsam3d.diffusion.hosts import register_host, remove_host
from fastsam3d.diffusion.hosts.native.host import NativeHost
from fastsam3d.diffusion.vocabulary import AccelerationWarning
from fastsam3d.errors import UserError

GENERATORS = {"sparse_structure": "ss_generator", "structured_latent": "slat_generator"}


class Forwarding(nn.Module):
    """Hands on the attributes and the calls of what is inside."""

    def __init__(self, inside):
        super().__init__()
        self.inside = inside

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("inside"), name)

    def forward(self, *args, **kwargs):
        return self.inside(*args, **kwargs)


class OwnSample(Forwarding):
    def sample(self, *args, **kwargs):
        return self.inside.sample(*args, **kwargs)


class OwnMethods(OwnSample):
    def velocity(self, *args, **kwargs):
        return self.inside.velocity(*args, **kwargs)


class Timed:
    """A wrapper around a pipeline with a run of its own."""

    def __init__(self, pipeline):
        self.pipeline = pipeline

    def __getattr__(self, name):
        return getattr(self.pipeline, name)

    def run(self, *args, **kwargs):
        return self.pipeline.run(*args, **kwargs)


def compiled(module):
    return torch.compile(module, backend="eager")


def attributes(pipeline):
    return [{name: id(value) for name, value in vars(m).items()} for m in (pipeline, *pipeline.models.modules())]


def counts(acceleration):
    return {name: (done.evaluations, done.forecast) for name, done in acceleration.report().stages.items()}


@pytest.mark.parametrize("wrap", [Forwarding, compiled, lambda module: compiled(Forwarding(module))])
@pytest.mark.parametrize("stage", GENERATORS)
def test_a_wrapped_generator_is_looked_through(pipeline, make_pipeline, picture, stage, wrap):
    plain = make_pipeline()
    with accelerate(plain, "fast") as acceleration:
        expected, done = plain.run(*picture, seed=1), counts(acceleration)
    pipeline.models[GENERATORS[stage]] = wrap(pipeline.models[GENERATORS[stage]])
    before = attributes(pipeline)
    with warnings.catch_warnings():
        warnings.simplefilter("error", AccelerationWarning)
        with accelerate(pipeline, "fast") as acceleration:
            accelerate(pipeline, "fast")  # also where what is inside is replaced already
            acceleration = accelerate(pipeline, "fast")
            assert torch.equal(pipeline.run(*picture, seed=1).feats, expected.feats)
            assert counts(acceleration) == done
            acceleration.remove()
    assert attributes(pipeline) == before


def test_a_wrapped_pipeline_is_looked_through(pipeline, picture):
    settings = {"token_aggregation.minimum_voxels": 0}
    with accelerate(pipeline, "paper", **settings):
        expected = pipeline.run(*picture, seed=1)
    timed = Timed(pipeline)
    with accelerate(timed, "paper", **settings) as acceleration:
        assert acceleration.pipeline is pipeline
        assert torch.equal(timed.run(*picture, seed=1).feats, expected.feats)


@pytest.mark.parametrize("stage", GENERATORS)
@pytest.mark.parametrize("wrap", [Forwarding, compiled, "in place"])
@pytest.mark.parametrize("part", ["reverse_fn", "backbone", "blocks.1"])
def test_a_wrapped_network_is_refused_with_its_name(pipeline, stage, wrap, part):
    if (wrap, part) == (Forwarding, "blocks.1"):
        return  # a block is called as it is, whatever is around it
    guidance = pipeline.models[GENERATORS[stage]].reverse_fn
    owner, name = {
        "reverse_fn": (pipeline.models[GENERATORS[stage]], "reverse_fn"),
        "backbone": (guidance, "backbone"),
        "blocks.1": (guidance.backbone.blocks, "1"),
    }[part]
    inside = getattr(owner, name)
    if wrap == "in place":
        inside.compile(backend="eager")
    else:
        setattr(owner, name, wrap(inside))
    before = attributes(pipeline)
    words = "wrapped in a Forwarding" if wrap is Forwarding else "compiled"
    with pytest.raises(UserError, match=rf"{part} of the {stage} generator is {words}"):
        accelerate(pipeline, "balanced")
    assert attributes(pipeline) == before


def test_a_wrapper_with_some_methods_of_its_own_is_refused(pipeline):
    pipeline.models["ss_generator"] = OwnSample(pipeline.models["ss_generator"])
    with pytest.raises(UserError, match="a OwnSample is around a ShortCut"):
        accelerate(pipeline, "balanced")


def test_nothing_is_attached_inside_compiled_decoders(pipeline):
    decoder = pipeline.models["ss_decoder"]
    pipeline.models["ss_decoder"] = compiled(decoder)
    with pytest.warns(AccelerationWarning, match=r"onednn rests: .*compiled \(ss_decoder\)"):
        acceleration = accelerate(pipeline, "exact")
    assert not any("forward" in vars(module) for module in decoder.modules())
    acceleration.remove()


def test_a_stage_that_no_evaluation_is_seen_of_warns_once(pipeline, picture):
    plain = pipeline.run(*picture, seed=1)
    pipeline.models["ss_generator"] = OwnMethods(pipeline.models["ss_generator"])
    acceleration = accelerate(pipeline, "off")
    with pytest.warns(AccelerationWarning, match="no evaluation of sparse_structure was seen"):
        result = pipeline.run(*picture, seed=1)
    assert torch.equal(result.feats, plain.feats)
    with warnings.catch_warnings():
        warnings.simplefilter("error", AccelerationWarning)
        pipeline.run(*picture, seed=1)
    report = acceleration.report()
    assert report.stages["sparse_structure"].evaluations == 0 < report.stages["structured_latent"].evaluations
    assert "note: no evaluation of sparse_structure" in str(report)


@pytest.mark.parametrize("stage", GENERATORS)
def test_networks_that_are_exchanged_afterwards_warn(pipeline, picture, stage):
    accelerate(pipeline, "balanced")
    pipeline.models[GENERATORS[stage]] = copy.deepcopy(pipeline.models[GENERATORS[stage]])
    with pytest.warns(AccelerationWarning, match=f"no evaluation of {stage} was seen"):
        pipeline.run(*picture, seed=1)


def test_a_first_stage_that_ran_elsewhere_is_not_missed(pipeline, make_pipeline, picture):
    image, mask = picture
    sampled = make_pipeline().sample_structures(image, [mask], seed=1)[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error", AccelerationWarning)
        with accelerate(pipeline, "balanced") as acceleration:
            pipeline.run(image, mask, seed=1, sampled=sampled)
            assert "no evaluation" not in str(acceleration.report())


class Deaf:
    """A runner for a host that never asks for the number of steps, or asks and takes its own."""

    def __init__(self, runner, asks):
        self._runner, self._asks = runner, asks

    def __getattr__(self, name):
        return getattr(self._runner, name)

    def grid(self, configured, rescale, times, edges):
        if self._asks:
            self._runner.grid(configured, rescale, times, edges)
        return configured, rescale


@pytest.fixture
def host_of():
    made = []

    def make(**members):
        made.append(register_host(type("OtherHost", (NativeHost,), members)))
        return made[-1]

    yield make
    for host in made:
        remove_host(host)


@pytest.mark.parametrize("asks", [False, True])
@pytest.mark.parametrize("technique", ["fewer_steps", "few_step_shortcut"])
def test_a_host_that_takes_its_own_number_of_steps_is_told(pipeline, picture, host_of, asks, technique):
    def attach_sampler(self, patches, stage, runner):
        NativeHost.attach_sampler(self, patches, stage, Deaf(runner, asks))

    host_of(attach_sampler=attach_sampler)
    changes = {f"{technique}.{stage}_steps": 4 for stage in GENERATORS}
    acceleration = accelerate(pipeline, "off", **{technique: True}, **changes)
    with pytest.warns(AccelerationWarning, match=f"{technique} sets no number of steps in sparse_structure and"):
        pipeline.run(*picture, seed=1)
    report = acceleration.report()
    claimed = technique == "few_step_shortcut"  # its distilled mode acts all the same
    assert (technique in report.techniques) is (technique in str(report).splitlines()[0]) is claimed
    assert f"note: {technique} sets no number of steps" in str(report)
    assert report.stages["sparse_structure"].conditional_computed == 9


def test_a_host_that_asks_is_believed(pipeline, picture):
    with warnings.catch_warnings():
        warnings.simplefilter("error", AccelerationWarning)
        # 4 steps meet the edge of guidance, so that 5 are run: more than were asked for, and as asked for.
        with accelerate(pipeline, "off", fewer_steps={"enabled": True, "sparse_structure_steps": 4}) as acceleration:
            pipeline.run(*picture, seed=1)
            assert "fewer_steps" in acceleration.report().techniques


@pytest.mark.parametrize(
    ("blocks", "preset", "need"),
    [
        ("latent_blocks", "paper", "tokens"),
        ("stream_blocks", "exact_layout", "layout_only"),
        ("block_stack", "first_block_cache", "block_stack"),
    ],
)
def test_a_host_that_lists_no_blocks_is_refused_before_anything_changes(pipeline, host_of, blocks, preset, need):
    host_of(**{blocks: lambda self, stage: []})
    before = attributes(pipeline)
    with accelerate(pipeline, "exact") as running:
        with pytest.raises(UserError, match=rf"OtherHost|says that it offers '{need}' .* lists no transformer blocks"):
            accelerate(pipeline, preset)
        assert running.active
    assert attributes(pipeline) == before
