"""Wrappers around the parts of other people's pipelines are looked through, refused, or noticed after a run."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import nn

from fastsam3d.acceleration.handle import accelerate
from fastsam3d.diffusion.hosts.shared.wrappers import is_compiled, owner_of
from fastsam3d.diffusion.vocabulary import AccelerationWarning
from fastsam3d.errors import UserError

SAMPLERS = {"sparse_structure": "sparse_structure_sampler", "structured_latent": "slat_sampler"}
GENERATORS = {"sparse_structure": "ss_generator", "structured_latent": "slat_generator"}


class Forwarding(nn.Module):
    """Hands on the attributes and the calls of what is inside, which may be no module."""

    def __init__(self, inside):
        super().__init__()
        object.__setattr__(self, "inside", inside)

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(object.__getattribute__(self, "inside"), name)

    def __setattr__(self, name, value):
        if "inside" in vars(self):
            setattr(self.inside, name, value)  # pipelines write step counts and strengths to their samplers
        else:
            super().__setattr__(name, value)

    def forward(self, *args, **kwargs):
        return self.inside(*args, **kwargs)


class OwnSample(Forwarding):
    def sample(self, model, noise, cond, neg_cond, steps, rescale_t, **kwargs):
        return self.inside.sample(model, noise, cond, neg_cond, steps, rescale_t, **kwargs)


def counts(acceleration):
    return {name: (done.evaluations, done.forecast) for name, done in acceleration.report().stages.items()}


def done_by(pipeline, run):
    with warnings.catch_warnings():
        warnings.simplefilter("error", AccelerationWarning)
        with accelerate(pipeline, "fast") as acceleration:
            result = run(pipeline)
            return counts(acceleration), result["mesh"][0].vertices


def of_sam3d(picture):
    return lambda pipeline: pipeline.run(*picture, seed=1)


def of_trellis(cut_out):
    return lambda pipeline: pipeline.run(cut_out, seed=1)


@pytest.mark.parametrize("stage", GENERATORS)
def test_generators_of_sam3d_objects(make_sam3d, picture, stage):
    expected = done_by(make_sam3d(), of_sam3d(picture))
    pipeline = make_sam3d()
    pipeline.models[GENERATORS[stage]] = Forwarding(pipeline.models[GENERATORS[stage]])
    found = done_by(pipeline, of_sam3d(picture))
    assert found[0] == expected[0]
    assert torch.equal(found[1], expected[1])


def test_guidance_in_a_wrapper_is_refused(sam3d):
    generator = sam3d.models["slat_generator"]
    generator.reverse_fn = Forwarding(generator.reverse_fn)
    with pytest.raises(UserError, match=r"slat_generator\.reverse_fn\.forward takes \(args, kwargs\)"):
        accelerate(sam3d, "balanced")


@pytest.mark.parametrize("stage", SAMPLERS)
def test_samplers_of_trellis(make_trellis, cut_out, stage):
    expected = done_by(make_trellis(), of_trellis(cut_out))
    pipeline = make_trellis()
    setattr(pipeline, SAMPLERS[stage], Forwarding(getattr(pipeline, SAMPLERS[stage])))
    found = done_by(pipeline, of_trellis(cut_out))
    assert found[0] == expected[0]
    assert torch.equal(found[1], expected[1])


def test_a_sampler_with_some_methods_of_its_own_is_refused(trellis):
    trellis.slat_sampler = OwnSample(trellis.slat_sampler)
    with pytest.raises(UserError, match="a OwnSample is around a FlowEulerGuidanceIntervalSampler"):
        accelerate(trellis, "balanced")


def test_a_sampler_that_is_gone_past_warns(trellis, cut_out):
    accelerate(trellis, "balanced")
    trellis.slat_sampler = copy.deepcopy(trellis.slat_sampler)
    with pytest.warns(AccelerationWarning, match="no evaluation of structured_latent was seen"):
        trellis.run(cut_out)


def test_guidance_that_is_compiled_in_place_is_refused(sam3d):
    sam3d.models["slat_generator"].reverse_fn.compile(backend="eager")
    with pytest.raises(UserError, match="guidance of the structured_latent stage is compiled in place"):
        accelerate(sam3d, "balanced")


def test_a_network_that_is_compiled_in_place_is_sealed(sam3d):
    sam3d.models["slat_generator"].reverse_fn.backbone.compile(backend="eager")
    with pytest.raises(UserError, match=r"token_carving cannot be attached.*compiled"):
        accelerate(sam3d, "paper")


def test_the_first_stage_alone_misses_nothing(sam3d, picture):
    with warnings.catch_warnings():
        warnings.simplefilter("error", AccelerationWarning)
        with accelerate(sam3d, "off"):
            sam3d.run(*picture, seed=1, stage1_only=True)


@pytest.mark.parametrize("kind", ["sam3d", "trellis"])
def test_a_shallow_copy_is_not_accelerated_beside_its_original(request, kind):
    pipeline = request.getfixturevalue(kind)
    with accelerate(pipeline, "balanced") as acceleration:
        with pytest.raises(UserError, match="shallow copy of one that is accelerated"):
            accelerate(copy.copy(pipeline), "balanced")
        assert acceleration.active


@pytest.mark.parametrize("kind", ["sam3d", "trellis"])
def test_encodings_of_old_weights_are_not_used(request, kind, picture, cut_out):
    pipeline = request.getfixturevalue(kind)
    run = of_sam3d(picture) if kind == "sam3d" else of_trellis(cut_out)
    encoders = [m for m in _modules(pipeline) if hasattr(m, "calls") and hasattr(m, "proj")]
    assert encoders
    with accelerate(pipeline, "off", **{"exact.shared_features": True}):
        run(pipeline)
        for encoder in encoders:
            encoder.proj.weight.data = 2 * encoder.proj.weight
        changed = run(pipeline)["mesh"][0].vertices
    assert torch.equal(changed, run(pipeline)["mesh"][0].vertices)


def _modules(pipeline):
    parts = [*pipeline.models.values(), *getattr(pipeline, "condition_embedders", {}).values()]
    return [module for part in parts if part is not None for module in part.modules()]


def test_owners_by_hand():
    class Inside:
        def first(self): ...
        def second(self): ...

    inside = Inside()
    outside = Forwarding(Forwarding(inside))
    assert owner_of(outside, "first", "second") is inside
    assert owner_of(inside, "first") is inside
    inside.first = outside.second  # somebody's replacement belongs to where it is put
    assert owner_of(inside, "first", "second") is inside
    assert owner_of(inside, "absent") is inside
    layer = nn.Linear(2, 2)
    assert not is_compiled(layer) and not is_compiled(inside)
    assert is_compiled(torch.compile(layer, backend="eager"))
    layer.compile(backend="eager")
    assert is_compiled(layer)
